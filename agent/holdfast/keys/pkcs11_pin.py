"""The PIN of a token, and the memory of one that was refused: it is never tried a second time.

A token locks itself for good after a few wrong PINs. What was refused is kept beside the keys as a salted,
slow hash, durable before anyone can come back to it. Another PIN in the file, or another token in the
configuration, is something new and may be tried.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from pkcs11 import TokenFlag

from holdfast.keys.key_files import remove_durably, write_durably
from holdfast.wire.errors import HoldfastError, KeyLocked, KeyStoreUnavailable

Secret = Callable[[], bytes]

REFUSED: Final = "pin-refused.json"
_LIMIT: Final = 4096
_SALT: Final = 16


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The token (its label and serial number), and scrypt of the PIN that it refused; both in hexadecimal."""

    token: str
    salt: str
    digest: str


class Pin:
    """The PIN that *source* gives when it is needed, and what *directory* remembers of it."""

    def __init__(self, source: Secret | None, directory: Path) -> None:
        self._source = source
        self._file = directory / REFUSED

    def read(self, token: str, flags: TokenFlag) -> str:
        """The PIN to try on *token* now. Raises KeyLocked unless trying it is safe.

        Codes: ``key.pin-missing``, ``key.pin-locked``, ``key.pin-final-try``, ``key.pin-refused``.
        """
        if flags & TokenFlag.USER_PIN_LOCKED:
            raise KeyLocked("key.pin-locked", f"{token}: {tries_left(flags)}")
        pin = self._value(token)
        if flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise KeyLocked("key.pin-final-try", f"{token}: {tries_left(flags)}; log in by hand once")
        if self._was_refused(token, pin):
            raise KeyLocked(
                "key.pin-refused",
                f"{token} has refused this PIN, so it is not tried again: {tries_left(flags)}. "
                f"Correct the PIN; if it was the token that was wrong, remove {self._file}",
            )
        if flags & TokenFlag.USER_PIN_COUNT_LOW:
            # Somebody failed already, perhaps we did and were cut off: then this try must not come again.
            self.refused(token, pin)
        return pin

    def refused(self, token: str, pin: str) -> None:
        """Remember it; durable on return."""
        salt = secrets.token_bytes(_SALT)
        entry = _Refusal(token, salt.hex(), _slow(pin, salt).hex())
        write_durably(self._file, msgspec.json.encode(entry))

    def accepted(self) -> None:
        """Forget what was refused before. Writes nothing if there is nothing to forget."""
        if self._file.exists():
            remove_durably(self._file)

    def _value(self, token: str) -> str:
        if self._source is None:
            raise KeyLocked("key.pin-missing", f"{token} wants a PIN, and none is configured")
        try:
            return self._source().decode()
        except UnicodeDecodeError:
            raise KeyLocked("key.pin-missing", f"the PIN of {token} is not UTF-8") from None
        except HoldfastError as error:
            raise KeyLocked(
                "key.pin-missing", f"the PIN of {token} cannot be read: {error.detail}"
            ) from error

    def _was_refused(self, token: str, pin: str) -> bool:
        try:
            with self._file.open("rb") as file:
                entry = msgspec.json.decode(file.read(_LIMIT), type=_Refusal)
            salt, digest = bytes.fromhex(entry.salt), bytes.fromhex(entry.digest)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:  # a msgspec error is a ValueError
            raise KeyStoreUnavailable("key.directory", f"{self._file} cannot be read: {error}") from error
        return entry.token == token and hmac.compare_digest(digest, _slow(pin, salt))


def tries_left(flags: TokenFlag) -> str:
    """What a token tells of the tries that are left. PKCS#11 has no number for it."""
    if flags & TokenFlag.USER_PIN_LOCKED:
        return "no try is left: it is locked, unblock it with its SO PIN"
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        return "one try is left before it locks itself"
    if flags & TokenFlag.USER_PIN_COUNT_LOW:
        return "more than one try is left, but wrong PINs have been counted"
    return "it does not tell how many tries are left"


def _slow(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)
