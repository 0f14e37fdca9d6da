"""A PKCS#11 module in this process: loaded once, used by one thread at a time, never after a fork.

A module is foreign machine code with state of its own for the whole process, so all stores of a process share
it. It is initialised when the first of them needs it and finalised when the last lets go: the next one sees
the tokens, keys and certificates that there are then. Many modules hang or worse in a forked child that
inherited them alive; there every use raises KeyStoreUnavailable(``key.forked``).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import PKCS11Error

from holdfast.wire.errors import KeyStoreUnavailable


class Module:
    """One initialised module. ``lock`` is held around every call into it; ``library`` is python-pkcs11's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.library: Any = _load(path)
        self._process = os.getpid()
        self._users = 1

    def join(self) -> None:
        """One more user."""
        self.check()
        self._users += 1

    def leave(self) -> bool:
        """One user less; whether it was the last, which ends the module. A forked child leaves it alone."""
        self._users -= 1
        if self._users == 0 and self._process == os.getpid():
            with self.lock:
                _finalise(self.library)
        return self._users == 0

    def check(self) -> None:
        """Raises KeyStoreUnavailable(``key.forked``)."""
        if self._process != os.getpid():
            raise KeyStoreUnavailable(
                "key.forked",
                f"{self.path} was loaded before this process was forked: it is of no use here",
            )

    def restart(self) -> bool:
        """Initialise it anew, so that even a stubborn one looks for tokens again; only for a sole user."""
        if self._users > 1:
            return False
        with self.lock:
            _finalise(self.library)
            self.library = _load(self.path)
        return True


_registry: Final[dict[Path, Module]] = {}
_registry_lock: Final = threading.Lock()


def acquire(path: Path) -> Module:
    """The module at *path*, to be given back by :func:`release`. Raises KeyStoreUnavailable."""
    with _registry_lock:
        module = _registry.get(path)
        if module is None:
            module = _registry[path] = Module(path)
        else:
            module.join()
        return module


def release(module: Module) -> None:
    """Give back what :func:`acquire` gave."""
    with _registry_lock:
        if module.leave():
            _registry.pop(module.path, None)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise KeyStoreUnavailable(
            "key.no-module", f"there is no PKCS#11 module {path}: is its package installed?"
        )
    try:
        return pkcs11.lib(str(path))
    except PKCS11Error as error:
        raise KeyStoreUnavailable(
            "key.no-module",
            f"{path} is no PKCS#11 module that can be used here: {error or type(error).__name__}",
        ) from error


def _finalise(library: Any) -> None:
    try:
        library.finalize()
    except PKCS11Error:
        library.unload()  # it is in a state of its own; the next use loads it from the start
        pkcs11.unload(library.so)
