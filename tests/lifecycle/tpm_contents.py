"""What a TPM holds, asked past the agent."""

from __future__ import annotations

from dataclasses import dataclass

from tpm2_pytss import ESAPI, TPM2_CAP

_TRANSIENT_FIRST = 0x80000000
_PERSISTENT_FIRST = 0x81000000
_MOST = 64


@dataclass(frozen=True)
class Handles:
    """The public keys of loaded transient objects (PEM), and the handle numbers of persistent objects."""

    transient: list[bytes]
    persistent: set[int]


def handles(tcti: str) -> Handles:
    """Ask the TPM at *tcti*."""
    with ESAPI(tcti) as esapi:
        loaded = []
        for handle in _listed(esapi, _TRANSIENT_FIRST):
            public, _, _ = esapi.read_public(esapi.tr_from_tpmpublic(handle))
            loaded.append(public.publicArea.to_pem())
        return Handles(loaded, _listed(esapi, _PERSISTENT_FIRST))


def flush_transient(tcti: str) -> None:
    """What a reboot does to loaded objects."""
    with ESAPI(tcti) as esapi:
        for handle in _listed(esapi, _TRANSIENT_FIRST):
            esapi.flush_context(esapi.tr_from_tpmpublic(handle))


def _listed(esapi: ESAPI, first: int) -> set[int]:
    _, data = esapi.get_capability(TPM2_CAP.HANDLES, first, _MOST)
    return {int(h) for h in data.data.handles if h >> 24 == first >> 24}
