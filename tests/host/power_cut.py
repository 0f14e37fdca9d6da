"""A power cut at any operation on the disk, and what may be left of it.

:class:`PowerCut` stands in for ``os`` in ``holdfast.host.durable``. At the k-th operation that changes the
disk it raises :class:`Dead`, and from then on nothing has an effect any more, so that no clean-up of the
program under test can help. :meth:`PowerCut.lose` then does what a real cut does: bytes that were not
fsynced are torn, and names that were not fsynced fall back to what the directory held at its last fsync.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

CHANGES = (
    "write",
    "fsync",
    "fchmod",
    "fchown",
    "rename",
    "link",
    "symlink",
    "unlink",
    "rmdir",
    "mkdir",
    "open",
)


class Dead(BaseException):
    """The process is gone."""


class PowerCut:
    """``os`` with a limited number of changing operations. ``count`` tells how many were asked for."""

    def __init__(self, root: Path, shadow: Path, at: int | None = None) -> None:
        self.at = at
        self.count = 0
        self.dead = False
        self.names: list[str] = []
        self._root = root
        self._shadow = shadow
        self._unsynced: dict[int, int] = {}  # inode -> a descriptor of ours
        self._durable: dict[int, Path] = {}  # inode of a directory -> its names at the last fsync, as links
        self._remember_all()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def operation(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if self.dead or self.count == self.at:
                self.dead = True
                raise Dead
            self.count += 1
            self.names.append(name)
            if name == "write":
                return self._write(*args)
            result = real(*args, **kwargs)
            if name == "fsync":
                self._synced(args[0])
            if name == "mkdir":  # its inode may have been that of a directory that is gone
                self._durable.pop(os.stat(args[0], dir_fd=kwargs.get("dir_fd")).st_ino, None)
            return result

        return operation

    def _write(self, fd: int, data: memoryview) -> int:
        inode = os.fstat(fd).st_ino
        if inode not in self._unsynced:
            self._unsynced[inode] = os.dup(fd)
        return os.write(fd, data[: max(256, len(data) // 2)])  # short writes are legal

    def _synced(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_dir():
            self._remember(path)
            return
        kept = self._unsynced.pop(os.fstat(fd).st_ino, None)
        if kept is not None:
            os.close(kept)

    def _remember_all(self) -> None:
        for directory in (
            self._root,
            *(p for p in self._root.rglob("*") if p.is_dir() and not p.is_symlink()),
        ):
            self._remember(directory)

    def _remember(self, directory: Path) -> None:
        copy = self._shadow / f"{len(list(self._shadow.iterdir()))}"
        copy.mkdir(parents=True)
        for entry in directory.iterdir():
            if entry.is_symlink():
                (copy / entry.name).symlink_to(entry.readlink())
            elif entry.is_dir():
                # A directory is known by its inode: its own content follows its own fsync.
                (copy / f"{entry.name}.@{entry.stat().st_ino}").mkdir()
            else:
                os.link(entry, copy / entry.name)
        self._durable[directory.stat().st_ino] = copy

    def lose(self, *, data: bool, names: bool) -> None:
        """What the cut takes with it."""
        for fd in self._unsynced.values():
            if data:
                os.ftruncate(fd, os.fstat(fd).st_size // 2)
            os.close(fd)
        self._unsynced.clear()
        if names:
            rebuilt = self._shadow.parent / "rebuilt"
            inode = self._root.stat().st_ino
            self._rebuild(inode, rebuilt)
            shutil.rmtree(self._root)
            rebuilt.rename(self._root)

    def _rebuild(self, inode: int, into: Path) -> None:
        into.mkdir()
        copy = self._durable.get(inode)
        for entry in () if copy is None else copy.iterdir():
            if entry.is_symlink():
                (into / entry.name).symlink_to(entry.readlink())
            elif entry.is_dir():
                name, _, child = entry.name.rpartition(".@")
                self._rebuild(int(child), into / name)
            else:
                os.link(entry, into / entry.name)
