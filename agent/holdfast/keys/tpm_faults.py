"""What a TPM response code means to the agent.

Codes are those of TPM 2.0 Library Part 2 §6.6; the layer that speaks stands in bits 16 to 23 (TSS 2.0).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable

NV_DEFINED: Final = 0x14C
COMMAND_CODE: Final = 0x143
INTEGRITY: Final = 0x9F
HANDLE: Final = 0x8B
VALUE: Final = 0x84
NV_RANGE: Final = 0x146

_TCTI_LAYER: Final = 0x0A
_ESAPI_LAYER: Final = 0x07
_RESOURCE_MANAGER_TPM_LAYER: Final = 0x0B  # TPM codes made up by a resource manager
_BROKEN_ESAPI: Final = frozenset({0x07, 0x0A})  # BAD_SEQUENCE, IO_ERROR: the context is stuck

_AUTH: Final = frozenset({0x8E, 0xA2})
_AUTH_KIND: Final = frozenset({0x9D, 0xA3, 0x124, 0x125, 0x126, 0x128, 0x12F})
_FULL: Final = frozenset({0x902, 0x903, 0x904, 0x905, 0x14B})
_GONE: Final = frozenset(range(0x910, 0x917))
_BUSY: Final = frozenset({0x908, 0x90A, 0x920, 0x922, 0x923})
_DEAD: Final = frozenset({0x100, 0x101})


class ObjectGone(KeyStoreUnavailable):
    """A loaded object is no longer in the TPM: it was reset, or someone flushed it."""


class TpmFull(KeyStoreUnavailable):
    """No slot is free for another object."""


def bare_code(rc: int) -> int:
    """*rc* without layer and without the number of the handle, session or parameter that it blames."""
    code = rc & 0xFFFF
    return code & 0xBF if code & 0x80 else code


def connection_broken(rc: int) -> bool:
    """True if the connection failed, so that the ESAPI context cannot be used any more."""
    layer = rc >> 16 & 0xFF
    return layer == _TCTI_LAYER or (layer == _ESAPI_LAYER and rc & 0xFF in _BROKEN_ESAPI)


def from_tpm(rc: int) -> bool:
    """True if the TPM (or a resource manager in its place) gave this answer."""
    return rc >> 16 & 0xFF in {0, _RESOURCE_MANAGER_TPM_LAYER}


def is_code(rc: int, code: int) -> bool:
    return from_tpm(rc) and bare_code(rc) == code


def fault(rc: int, text: str, doing: str) -> KeyStoreError:
    """The error to raise when the TPM answered *rc* (in words: *text*) while *doing*."""
    said = f"{doing}: {text} ({rc:#x})"
    if not from_tpm(rc):
        return KeyStoreError("key.tss", said)
    code = bare_code(rc)
    for codes, kind, name, advice in _MEANINGS:
        if code in codes:
            return kind(name, f"{said}; {advice}" if advice else said)
    return KeyStoreError("key.tpm", said)


_MEANINGS: Final[tuple[tuple[frozenset[int], type[KeyStoreError], str, str], ...]] = (
    (_AUTH, KeyLocked, "key.auth-failed", "the authorisation value is wrong; it is not tried again"),
    (
        frozenset({0x921}),
        KeyLocked,
        "key.lockout",
        "the TPM is in dictionary-attack lockout: wait, or reset it with the lockout authorisation",
    ),
    (_AUTH_KIND, KeyLocked, "key.auth-kind", "this object wants another kind of authorisation"),
    (frozenset({HANDLE}), KeyNotFound, "key.not-found", ""),
    (_GONE, ObjectGone, "key.object-gone", ""),
    (_FULL, TpmFull, "key.tpm-full", "use /dev/tpmrm0 or another resource manager"),
    (_BUSY, KeyStoreUnavailable, "key.tpm-busy", ""),
    (_DEAD, KeyStoreUnavailable, "key.tpm-failed", "the TPM must be started or reset"),
)


def unreachable(tcti: str, text: str) -> KeyStoreUnavailable:
    """Why no connection over *tcti* could be made, as far as this host can tell."""
    kind, _, where = tcti.partition(":")
    if kind == "device":
        device = Path(where or "/dev/tpmrm0")
        if not device.exists():
            return KeyStoreUnavailable(
                "key.tpm-unreachable",
                f"{device} does not exist: is a TPM 2.0 there and enabled in the firmware?",
            )
        if not os.access(device, os.R_OK | os.W_OK):
            return KeyStoreUnavailable(
                "key.tpm-unreachable",
                f"permission denied on {device}: run as a member of its group, usually tss",
            )
    return KeyStoreUnavailable("key.tpm-unreachable", f"no TPM answers at '{tcti}': {text}")
