"""Wrapped keys on disk: one small file a key, whole or not there at all, and durable when written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdfast.wire.errors import KeyNotFound, KeyStoreError, KeyStoreUnavailable

_SUFFIX: Final = ".tss2.pem"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}-(0|[1-9][0-9]{0,8})")


def file_name(identity: str, generation: int) -> str:
    """Name of the key of one generation. Raises KeyStoreError(``key.reference``)."""
    return checked(f"{identity}-{generation}")


def checked(name: str) -> str:
    """*name* if a key may be called so: it becomes a file name, so nothing else is let through."""
    if not _NAME.fullmatch(name):
        raise KeyStoreError(
            "key.reference", f"{name[:80]!r} names no key: want lower-case, digits, '-' and '_'"
        )
    return name


class KeyFiles:
    """The key files of one directory, which is made when first written. Names are without suffix."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> frozenset[str]:
        """Raises KeyStoreUnavailable(``key.directory``)."""
        try:
            found = [p.name for p in self._directory.iterdir()]
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise _unusable(error) from error
        stems = (n.removesuffix(_SUFFIX) for n in found if n.endswith(_SUFFIX))
        return frozenset(s for s in stems if _NAME.fullmatch(s))

    def read(self, name: str, limit: int) -> bytes:
        """At most *limit* + 1 octets of the file. Raises KeyNotFound, KeyStoreUnavailable."""
        try:
            with self._path(name).open("rb") as file:
                return file.read(limit + 1)
        except FileNotFoundError as error:
            raise KeyNotFound("key.not-found", f"no key {name} in {self._directory}") from error
        except OSError as error:
            raise _unusable(error) from error

    def write(self, name: str, content: bytes) -> None:
        """Replace the file; it is durable on return. Raises KeyStoreUnavailable(``key.directory``)."""
        write_durably(self._path(name), content)

    def remove(self, name: str) -> None:
        """Remove the file, if it is there; durable on return. Raises KeyStoreUnavailable."""
        remove_durably(self._path(name))

    def _path(self, name: str) -> Path:
        return self._directory / (checked(name) + _SUFFIX)


def write_durably(path: Path, content: bytes) -> None:
    """Replace *path*, readable for its owner only: whole, or as before, and durable on return.

    Its directory is made if need be. Raises KeyStoreUnavailable(``key.directory``).
    """
    temporary = path.with_name(f".{path.name}.new")  # always the same: a power cut leaves one at most
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # what failed first is what to tell
            temporary.unlink()
        raise _unusable(error) from error


def remove_durably(path: Path) -> None:
    """Remove *path*, if it is there; durable on return. Raises KeyStoreUnavailable(``key.directory``)."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_directory(path.parent)
    except OSError as error:
        raise _unusable(error) from error


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for *path*, a file that is made if need be.

    It ends with its process, whatever happens. Raises KeyStoreUnavailable(``key.directory``).
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(error: OSError) -> KeyStoreUnavailable:
    return KeyStoreUnavailable("key.directory", f"the key directory cannot be used: {error}")
