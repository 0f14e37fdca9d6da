"""What an error of a PKCS#11 module means to the agent."""

from __future__ import annotations

from typing import Final

import pkcs11
from pkcs11 import PKCS11Error

from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable

LOST: Final[tuple[type[PKCS11Error], ...]] = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceError,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.SlotIDInvalid,
    pkcs11.UserNotLoggedIn,
    pkcs11.OperationActive,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
)
"""After one of these a new session may find everything in order again."""

PIN_REFUSED: Final[tuple[type[PKCS11Error], ...]] = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
)

BAD_CIPHERTEXT: Final[tuple[type[PKCS11Error], ...]] = (
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.DataInvalid,
    pkcs11.DataLenRange,
    pkcs11.FunctionFailed,
    pkcs11.GeneralError,  # SoftHSM2 and tpm2-pkcs11 say no more than this
)

TEMPLATE_REFUSED: Final[tuple[type[PKCS11Error], ...]] = (
    pkcs11.TemplateInconsistent,
    pkcs11.TemplateIncomplete,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.AttributeReadOnly,
    pkcs11.GeneralError,
)

NOT_OFFERED: Final[tuple[type[PKCS11Error], ...]] = (
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.ArgumentsBad,
    pkcs11.FunctionNotSupported,
)

_MEANINGS: Final[tuple[tuple[tuple[type[PKCS11Error], ...], type[KeyStoreError], str, str], ...]] = (
    ((pkcs11.PinLocked,), KeyLocked, "key.pin-locked", "unblock the token with its SO PIN"),
    (PIN_REFUSED, KeyLocked, "key.pin-wrong", ""),
    ((pkcs11.UserPinNotInitialized,), KeyLocked, "key.pin-unset", "set the token's user PIN"),
    ((pkcs11.UserNotLoggedIn,), KeyLocked, "key.pin-missing", "the token wants a PIN"),
    (
        (pkcs11.DeviceMemory,),
        KeyStoreUnavailable,
        "key.token-full",
        "remove objects that nobody needs, or take a larger token",
    ),
    ((pkcs11.TokenWriteProtected,), KeyStoreUnavailable, "key.token-write-protected", ""),
    ((pkcs11.SessionCount,), KeyStoreUnavailable, "key.token-busy", "it has no session left"),
    ((pkcs11.KeyHandleInvalid, pkcs11.ObjectHandleInvalid), KeyNotFound, "key.not-found", ""),
    (NOT_OFFERED, KeyStoreError, "key.unsupported", "this token does not do it"),
    (
        (pkcs11.DomainParamsInvalid, pkcs11.KeySizeRange, pkcs11.AttributeValueInvalid),
        KeyStoreError,
        "key.unsupported",
        "this token does not do it",
    ),
    (LOST, KeyStoreUnavailable, "key.token-lost", "the token was removed or reset"),
)


def fault(error: PKCS11Error, doing: str) -> KeyStoreError:
    """The error to raise when the module answered *error* while *doing*."""
    said = f"{doing}: {type(error).__name__}" + (f" ({error})" if str(error) else "")
    for kinds, meaning, code, advice in _MEANINGS:
        if isinstance(error, kinds):
            return meaning(code, f"{said}; {advice}" if advice else said)
    return KeyStoreError("key.token", said)
