"""A login on the one token that a URI names: found, opened, logged in, and found again when it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import PKCS11Error, TokenFlag

from holdfast.keys import pkcs11_module
from holdfast.keys.key_files import turn
from holdfast.keys.pkcs11_faults import LOST, PIN_REFUSED, fault
from holdfast.keys.pkcs11_module import Module
from holdfast.keys.pkcs11_pin import Pin, tries_left
from holdfast.keys.pkcs11_uri import Pkcs11Uri, TokenFacts
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable

T = TypeVar("T")

TURNS: Final = "token.lock"
_ATTEMPTS: Final = 2


class TokenSession:
    """Runs operations on the token that *uri* names, one at a time, from any thread of this process.

    Processes that share *directory* take turns, too: not every module is made for more than one at a time.
    Nothing is loaded before the first operation. Each look for the token goes through all slots, so a token
    that was pulled and comes back in another slot is found.
    """

    def __init__(self, module: Path, uri: Pkcs11Uri, pin: Pin, directory: Path) -> None:
        self.uri = uri
        self._turns = directory / TURNS
        self._path = module
        self._pin = pin
        self._lock = threading.RLock()
        self._module: Module | None = None
        self._login: Any = None  # keeps the process logged in while sessions for work come and go
        self._session: Any = None
        self._closed = False

    @property
    def manufacturer(self) -> str:
        """Who made the module; known once something ran."""
        return self._module.library.manufacturer_id if self._module is not None else ""

    def run(self, doing: str, operation: Callable[[Any], T]) -> T:
        """The result of *operation* on a logged-in session.

        *operation* must be safe to repeat: it runs a second time, on a new session, if the token was lost.
        Raises KeyStoreError and its kinds; *doing* says for a person what was tried.
        """
        with self._lock, turn(self._turns):
            module = self._loaded()
            with module.lock:
                for attempt in range(1, _ATTEMPTS + 1):
                    fresh = self._session is None
                    try:
                        return operation(self._connected(module, doing))
                    except KeyNotFound:
                        # It may be the token that is gone, and a key is not given up for that.
                        if fresh:
                            raise
                        self._disconnect(module)
                    except KeyStoreError:
                        self._drop_session()
                        raise
                    except PKCS11Error as error:
                        # Some modules never end the operation that failed, so its session is not used again.
                        self._drop_session()
                        if attempt == _ATTEMPTS or not isinstance(error, LOST):
                            raise fault(error, doing) from error
                        self._disconnect(module)
                raise AssertionError  # the loop returns or raises

    def close(self) -> None:
        """Let go of the module; the last one to do so logs out. Idempotent."""
        with self._lock:
            self._closed = True
            self._session = self._login = None
            if self._module is not None:
                module, self._module = self._module, None
                with turn(self._turns):
                    pkcs11_module.release(module)

    def _loaded(self) -> Module:
        if self._closed:
            raise KeyStoreUnavailable("key.closed", "the key store was closed")
        if self._module is None:
            self._module = pkcs11_module.acquire(self._path)
        self._module.check()
        return self._module

    def _connected(self, module: Module, doing: str) -> Any:
        if self._session is None:
            token = self._find(module) or self._find_anew(module)
            if self._login is None:
                self._login = self._log_in(token, doing)
            self._session = token.open(rw=True)
        return self._session

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except PKCS11Error:
                return  # it is gone already

    def _disconnect(self, module: Module) -> None:
        self._session = self._login = None
        module.restart()

    def _find(self, module: Module) -> Any:
        """The one token, or None. Raises KeyStoreError(``key.token-ambiguous``)."""
        found = [token for token, facts in tokens(module.library) if self.uri.matches_token(facts)]
        if len(found) > 1:
            wanted = self.uri.of_token.text()
            raise KeyStoreError(
                "key.token-ambiguous", f"{len(found)} tokens are {wanted}: say more of the right one"
            )
        return found[0] if found else None

    def _find_anew(self, module: Module) -> Any:
        """Some modules list their tokens only once, so the last look is with a module that just started."""
        self._disconnect(module)
        token = self._find(module)
        if token is None:
            seen = ", ".join(repr(facts.token) for _, facts in tokens(module.library)) or "none at all"
            raise KeyStoreUnavailable(
                "key.token-absent", f"no token is {self.uri.of_token.text()}; {self._path} shows {seen}"
            )
        return token

    def _log_in(self, token: Any, doing: str) -> Any:
        if not token.flags & TokenFlag.LOGIN_REQUIRED:
            return token.open(rw=True)
        name = f"{token.label} ({token.serial.decode('utf-8', 'replace')})"
        pin = self._pin.read(name, token.flags)
        try:
            session = token.open(rw=True, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:  # another store of this process did it
            session = token.open(rw=True)
        except PIN_REFUSED as error:
            self._pin.refused(name, pin)
            left = tries_left(token.slot.get_token().flags)
            raise KeyLocked(
                "key.pin-wrong",
                f"{doing}: {name} refuses the PIN ({type(error).__name__}); {left}. It is not tried again",
            ) from error
        self._pin.accepted()
        return session


def tokens(library: Any) -> Iterator[tuple[Any, TokenFacts]]:
    """Every initialised token that the module shows."""
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            continue
        if token.flags & TokenFlag.TOKEN_INITIALIZED:
            yield token, _facts(library, slot, token)


def _facts(library: Any, slot: Any, token: Any) -> TokenFacts:
    return TokenFacts(
        token=token.label,
        manufacturer=token.manufacturer_id,
        serial=token.serial.decode("utf-8", "replace"),
        model=token.model,
        library_manufacturer=library.manufacturer_id,
        library_description=library.library_description,
        library_version=library.library_version,
        slot_manufacturer=slot.manufacturer_id,
        slot_description=slot.slot_description,
        slot_id=slot.slot_id,
    )
