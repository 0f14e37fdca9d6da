"""Where a unit is, as an operator writes it, and how it is opened.

- ``tcti:device:/dev/tpmrm0``, ``tcti:swtpm:host=127.0.0.1,port=2321``: a TPM of this machine, by a TCTI.
- ``ssh:root@bench-1?tpm=/dev/tpmrm0&port=22&config=FILE``: a TPM at the other end of SSH.
- ``pkcs11:token=unit?module-path=FILE&pin-source=file:FILE``: a token (RFC 7512), without TPM evidence.
- ``serial:/dev/ttyUSB0?baud=115200&tpm=/dev/tpmrm0``: a TPM behind a serial console.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain
from holdfast_factory.chips.ek_issue import Endorser
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.unit import Examiner, Unit

DEFAULT_TPM = "/dev/tpmrm0"


def open_unit(place: str, *, endorser: Endorser | None = None) -> Unit:
    """Raises KeyStoreUnavailable while no unit is there, ConfigError ``factory.place`` for no place.

    *endorser* certifies the endorsement key of a TPM whose maker left no certificate.
    """
    kind, rest = _split(place)
    return _OPENERS[kind](place, rest, endorser)


def examiner_for(place: str, makers: Chain) -> Examiner:
    """Who judges what a unit at *place* shows. *makers*: roots of TPM makers."""
    kind, _ = _split(place)
    if kind != "pkcs11":
        return TpmExaminer(makers)
    from holdfast_factory.token_unit import TokenExaminer  # noqa: PLC0415 (nor the library for tokens)

    return TokenExaminer()


def _local(place: str, rest: str, endorser: Endorser | None) -> Unit:
    from holdfast_factory.chips.links import TctiLink  # noqa: PLC0415 (the TSS, where a TPM is near)
    from holdfast_factory.tpm_unit import TpmUnit  # noqa: PLC0415

    return TpmUnit(TctiLink(rest), place, endorser=endorser)


def _ssh(_: str, rest: str, endorser: Endorser | None) -> Unit:
    from holdfast_factory.chips.remote import over_ssh  # noqa: PLC0415 (not where the unit is near)
    from holdfast_factory.tpm_unit import TpmUnit  # noqa: PLC0415

    host, settings = _settings(rest, "tpm", "port", "config")
    tpm, port, config = (settings.get(k, d) for k, d in (("tpm", DEFAULT_TPM), ("port", ""), ("config", "")))
    return TpmUnit(over_ssh(host, tpm, port=port, config=config), f"ssh:{host}", endorser=endorser)


def _serial(_: str, rest: str, endorser: Endorser | None) -> Unit:
    from holdfast_factory.chips.remote import over_serial  # noqa: PLC0415
    from holdfast_factory.tpm_unit import TpmUnit  # noqa: PLC0415

    device, settings = _settings(rest, "tpm", "baud")
    baud = settings.get("baud", "115200")
    if not baud.isdecimal():
        raise ConfigError("factory.place", f"baud={baud[:20]!r} is no number")
    link = over_serial(device, settings.get("tpm", DEFAULT_TPM), baud=int(baud))
    return TpmUnit(link, f"serial:{device}", endorser=endorser)


def _token(place: str, _: str, __: Endorser | None) -> Unit:
    from holdfast_factory.token_unit import token_at  # noqa: PLC0415

    return token_at(place)


_OPENERS: dict[str, Callable[[str, str, Endorser | None], Unit]] = {
    "tcti": _local,
    "ssh": _ssh,
    "serial": _serial,
    "pkcs11": _token,
}


def _settings(rest: str, *known: str) -> tuple[str, dict[str, str]]:
    """``WHERE?name=value&...``. Raises ConfigError for a name that is none of *known*."""
    where, _, query = rest.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(settings) - set(known):
        raise ConfigError("factory.place", f"{sorted(unknown)[0][:40]!r}: none of {', '.join(known)}")
    return where, settings


def _split(place: str) -> tuple[str, str]:
    kind, _, rest = place.partition(":")
    if kind not in _OPENERS or not rest:
        raise ConfigError("factory.place", f"{place[:80]!r}: begins with none of {', '.join(_OPENERS)}")
    return kind, rest
