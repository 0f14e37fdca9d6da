"""One step at a time: an advisory lock on the state directory, gone with the process that held it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from holdfast.host.durable import STATE_MODE, Directory, storage_errors
from holdfast.wire.errors import StateError

_NAME: Final = "lock"
_UNNAMED: Final = "another process"
_PROC_LOCKS: Final = Path("/proc/locks")


class StateLock:
    """Context manager that holds the lock of *directory*. Never waits and writes nothing to disk but an
    empty file, once. Raises StateError ``state.locked`` with the process id of the holder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def __enter__(self) -> StateLock:
        with storage_errors("state", f"lock {self._directory}"):
            with Directory.make(self._directory, STATE_MODE):
                fd = os.open(
                    self._directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = _holder(fd)
                os.close(fd)
                raise StateError("state.locked", f"{self._directory} is in use by {holder}") from error
            except OSError:
                os.close(fd)
                raise
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(directory: Path) -> str | None:
    """Who holds the lock of *directory*, for one who only looks; None if nobody seems to."""
    try:
        fd = os.open(directory / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        named = _holder(fd)
    finally:
        os.close(fd)
    return None if named == _UNNAMED else named


def _holder(fd: int) -> str:
    """Who holds the lock, as the kernel tells it. In a container the kernel may not name the process."""
    inode = os.fstat(fd).st_ino
    try:
        lines = _PROC_LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        # 5: FLOCK  ADVISORY  WRITE 4711 fe:01:131090 0 EOF. The device is left out: btrfs shows another
        # one here than in stat. A line of somebody who waits has "->" in second place.
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == str(inode) and fields[4] != "0":
            return f"process {fields[4]}"
    return _UNNAMED
