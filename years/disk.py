"""A disk in memory, under the agent's real stores: it takes the place of ``os`` in ``holdfast.host.durable``.

It forgets at a power cut what a disk may forget: content that no fsync of the file made durable, and
changes of names since the last fsync of their directory, of which any prefix may survive. A call is a point
at which the power may fail. It can also be full, or read-only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import PurePath
from random import Random
from typing import BinaryIO
from unittest.mock import patch

from holdfast.host import durable

from .power import Fuse


@dataclass(slots=True)
class File:
    """``safe`` is what a power cut leaves at least; between it and ``data`` all is possible."""

    mode: int
    data: bytes = b""
    safe: bytes = b""


@dataclass(slots=True)
class Link:
    target: str


@dataclass(slots=True)
class Folder:
    """``past`` holds the entries at the last fsync, and after each change of names since."""

    mode: int
    entries: dict[str, Node] = field(default_factory=dict)
    past: list[dict[str, Node]] = field(default_factory=lambda: [{}])

    def changed(self) -> None:
        self.past.append(dict(self.entries))


Node = File | Link | Folder


@dataclass(frozen=True, slots=True)
class Status:
    """The part of ``os.stat_result`` that somebody asks for."""

    st_mode: int
    st_uid: int = 0
    st_gid: int = 0


class _Reading(BytesIO):
    """What ``fdopen`` gives: closing it closes the descriptor."""

    def __init__(self, disk: Disk, fd: int, data: bytes) -> None:
        super().__init__(data)
        self._disk, self._fd = disk, fd

    def close(self) -> None:
        if not self.closed:
            self._disk.close(self._fd)
        super().close()


class Disk:
    """Implements what ``durable`` uses of ``os``; OSError as there. ``writes`` counts changes."""

    O_RDONLY, O_WRONLY, O_CREAT, O_EXCL = os.O_RDONLY, os.O_WRONLY, os.O_CREAT, os.O_EXCL
    O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_NONBLOCK = (
        os.O_DIRECTORY,
        os.O_NOFOLLOW,
        os.O_CLOEXEC,
        os.O_NONBLOCK,
    )

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self._open: dict[int, Node] = {}
        self._next = 1000
        self.root = Folder(0o755)
        self.full = False
        self.read_only = False
        self.writes = 0

    # --- what befalls it -----------------------------------------------------------------------------

    def lose_power(self, chance: Random) -> None:
        """Forget what was not made durable, or a part of it."""
        self._open.clear()
        self._forget(self.root, chance)

    def _forget(self, folder: Folder, chance: Random) -> None:
        folder.entries = dict(folder.past[chance.randrange(len(folder.past))])
        folder.past = [dict(folder.entries)]
        for node in folder.entries.values():
            if isinstance(node, Folder):
                self._forget(node, chance)
            elif isinstance(node, File) and node.data != node.safe:
                node.data = chance.choice((node.safe, node.data, node.data[: len(node.data) // 2]))
                node.safe = node.data

    def find(self, path: PurePath) -> Node | None:
        """What is at *path*, without asking the power."""
        node: Node | None = self.root
        for part in path.parts[1:]:
            node = node.entries.get(part) if isinstance(node, Folder) else None
        return node

    # --- os ------------------------------------------------------------------------------------------

    def open(self, path: PurePath | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        folder, name = self._place(path, dir_fd)
        node = folder.entries.get(name) if name else folder
        if flags & self.O_CREAT:
            self._change("open")
            if node is not None:
                raise OSError(errno.EEXIST, "exists", name)
            node = folder.entries[name] = File(mode)
            folder.changed()
        self._fuse.point("open")
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "missing", str(path))
        if isinstance(node, Link):
            raise OSError(errno.ELOOP, "a link", name)
        if flags & self.O_DIRECTORY and not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, "no directory", name)
        self._next += 1
        self._open[self._next] = node
        return self._next

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)

    def fdopen(self, fd: int, _mode: str) -> BinaryIO:
        return _Reading(self, fd, self._file(fd).data)

    def write(self, fd: int, data: memoryview) -> int:
        self._change("write", space=True)
        node = self._file(fd)
        node.data += bytes(data)
        return len(data)

    def fsync(self, fd: int) -> None:
        self._fuse.point("fsync")
        node = self._open[fd]
        if isinstance(node, Folder):
            if len(node.past) > 1:
                node.past = [dict(node.entries)]
        elif isinstance(node, File):
            node.safe = node.data

    def fstat(self, fd: int) -> Status:
        return _status(self._open[fd])

    def stat(self, path: str, *, dir_fd: int, follow_symlinks: bool) -> Status:
        assert not follow_symlinks
        return _status(self._existing(self._folder(dir_fd), path))

    def fchmod(self, fd: int, mode: int) -> None:
        self._change("fchmod")
        node = self._open[fd]
        assert not isinstance(node, Link)
        node.mode = mode

    def fchown(self, _fd: int, _uid: int, _gid: int) -> None:
        self._change("fchown")

    def listdir(self, fd: int) -> list[str]:
        return list(self._folder(fd).entries)

    def readlink(self, path: str, *, dir_fd: int) -> str:
        node = self._existing(self._folder(dir_fd), path)
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, "no link", path)
        return node.target

    def mkdir(self, path: str, mode: int, *, dir_fd: int) -> None:
        self._enter(self._folder(dir_fd), path, Folder(mode), "mkdir")

    def symlink(self, target: str, path: str, *, dir_fd: int) -> None:
        self._enter(self._folder(dir_fd), path, Link(target), "symlink")

    def link(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        node = self._existing(self._folder(src_dir_fd), old)
        self._enter(self._folder(dst_dir_fd), new, node, "link")

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        assert src_dir_fd == dst_dir_fd, "one directory, so that a rename is one change"
        self._change("rename")
        folder = self._folder(src_dir_fd)
        node = self._existing(folder, old)
        if folder.entries.get(new) is node:
            return  # both names stay, as POSIX wants
        folder.entries[new] = node
        del folder.entries[old]
        folder.changed()

    def unlink(self, path: str, *, dir_fd: int) -> None:
        folder = self._folder(dir_fd)
        self._existing(folder, path)
        self._change("unlink")
        del folder.entries[path]
        folder.changed()

    def rmdir(self, path: str, *, dir_fd: int) -> None:
        folder = self._folder(dir_fd)
        node = self._existing(folder, path)
        if not isinstance(node, Folder) or node.entries:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        self._change("rmdir")
        del folder.entries[path]
        folder.changed()

    # --- parts ---------------------------------------------------------------------------------------

    def _change(self, name: str, *, space: bool = False) -> None:
        self._fuse.point(name)
        if self.read_only:
            raise OSError(errno.EROFS, "read-only")
        if self.full and space:
            raise OSError(errno.ENOSPC, "full")
        self.writes += 1

    def _enter(self, folder: Folder, name: str, node: Node, call: str) -> None:
        self._change(call, space=call == "mkdir")
        if name in folder.entries:
            raise OSError(errno.EEXIST, "exists", name)
        folder.entries[name] = node
        folder.changed()

    def _place(self, path: PurePath | str, dir_fd: int | None) -> tuple[Folder, str]:
        if dir_fd is not None:
            return self._folder(dir_fd), str(path)
        *above, name = _parts(str(path))
        folder: Node | None = self.root
        for part in above:
            folder = folder.entries.get(part) if isinstance(folder, Folder) else None
        if not isinstance(folder, Folder):
            raise FileNotFoundError(errno.ENOENT, "missing", str(path))
        return folder, name

    def _folder(self, fd: int) -> Folder:
        node = self._open[fd]
        assert isinstance(node, Folder)
        return node

    def _file(self, fd: int) -> File:
        node = self._open[fd]
        assert isinstance(node, File)
        return node

    def _existing(self, folder: Folder, name: str) -> Node:
        try:
            return folder.entries[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "missing", name) from None


@lru_cache(256)
def _parts(path: str) -> tuple[str, ...]:
    return PurePath(path).parts[1:] or ("",)


def _status(node: Node) -> Status:
    match node:
        case Folder():
            return Status(stat.S_IFDIR | node.mode)
        case File():
            return Status(stat.S_IFREG | node.mode)
        case Link():
            return Status(stat.S_IFLNK | 0o777)


@contextmanager
def mounted(disk: Disk) -> Iterator[None]:
    """While this lasts, the agent's stores are on *disk*."""
    with patch.object(durable, "os", disk):
        yield
