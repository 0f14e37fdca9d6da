"""What a TPM tells about itself for the asking: no session, no authorisation, nothing made or changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tpm2_pytss import TPM2_CAP, TSS2_Exception

from holdfast.keys.tpm_faults import HANDLE, is_code
from holdfast.keys.tpm_templates import is_storage_parent

# TPM 2.0 Library Part 2 §6.13.
_MANUFACTURER: Final = 0x105
_FIRMWARE: Final = (0x10B, 0x10C)
_PERMANENT: Final = 0x200
_LOCKOUT_COUNTER: Final = 0x20E
_MAX_AUTH_FAIL: Final = 0x20F
_LOCKOUT_INTERVAL: Final = 0x210
_IN_LOCKOUT: Final = 1 << 9
_FIXED: Final = 0x100
_VARIABLE: Final = 0x200
_GROUP: Final = 64


@dataclass(frozen=True, slots=True)
class TpmHealth:
    """``failures`` counts wrong authorisations and power cuts without notice; at ``most_failures`` the TPM
    locks. One is forgiven each ``forgives_after`` seconds (0: none ever). ``srk_name`` is None where no
    storage root key stands, ``srk_usable`` whether keys can be made under what does."""

    manufacturer: str
    firmware: str
    failures: int
    most_failures: int
    forgives_after: int
    locked: bool
    srk_name: bytes | None
    srk_usable: bool


def examine(esapi: Any, srk: int) -> TpmHealth:
    """Two GetCapability and one ReadPublic. Raises TSS2_Exception."""
    fixed, variable = _properties(esapi, _FIXED), _properties(esapi, _VARIABLE)
    name, usable = _parent(esapi, srk)
    high, low = (fixed.get(number, 0) for number in _FIRMWARE)
    return TpmHealth(
        manufacturer=_text(fixed.get(_MANUFACTURER, 0)),
        firmware=f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}",
        failures=variable.get(_LOCKOUT_COUNTER, 0),
        most_failures=variable.get(_MAX_AUTH_FAIL, 0),
        forgives_after=variable.get(_LOCKOUT_INTERVAL, 0),
        locked=bool(variable.get(_PERMANENT, 0) & _IN_LOCKOUT),
        srk_name=name,
        srk_usable=usable,
    )


def _properties(esapi: Any, first: int) -> dict[int, int]:
    _, capability = esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, first, _GROUP)
    return {int(p.property): int(p.value) for p in capability.data.tpmProperties}


def _parent(esapi: Any, handle: int) -> tuple[bytes | None, bool]:
    """Name of the object at *handle*, and whether it is a storage key."""
    try:
        esys = esapi.tr_from_tpmpublic(handle)
    except TSS2_Exception as error:
        if is_code(error.rc, HANDLE):
            return None, False
        raise
    try:
        public, name, _ = esapi.read_public(esys)
        return bytes(name), is_storage_parent(public.publicArea)
    finally:
        esapi.tr_close(esys)


def _text(number: int) -> str:
    """Four letters of the maker's identifier."""
    letters = number.to_bytes(4, "big").decode("ascii", "replace").strip("\0 ")
    return "".join(c if c.isprintable() else "?" for c in letters) or "unknown"
