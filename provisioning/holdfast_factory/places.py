"""Where a unit is, as an operator writes it, and how it is opened.

``tcti:device:/dev/tpmrm0``, ``tcti:swtpm:host=127.0.0.1,port=2321``: a TPM of this machine, by a TCTI.
"""

from __future__ import annotations

from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.unit import Examiner, Unit

KINDS = ("tcti",)


def open_unit(place: str) -> Unit:
    """Raises KeyStoreUnavailable while no unit is there, ConfigError ``factory.place`` for no place."""
    kind, rest = _split(place)
    from holdfast_factory.chips.links import TctiLink  # noqa: PLC0415 (the TSS, where a TPM is near)
    from holdfast_factory.tpm_unit import TpmUnit  # noqa: PLC0415

    assert kind == "tcti"
    return TpmUnit(TctiLink(rest), place)


def examiner_for(place: str, makers: Chain) -> Examiner:
    """Who judges what a unit at *place* shows. *makers*: roots of TPM makers."""
    _split(place)
    return TpmExaminer(makers)


def _split(place: str) -> tuple[str, str]:
    kind, _, rest = place.partition(":")
    if kind not in KINDS or not rest:
        raise ConfigError("factory.place", f"{place[:80]!r}: begins with none of {', '.join(KINDS)}")
    return kind, rest
