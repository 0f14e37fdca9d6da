"""Names and bytes that survive a power cut: the few disk operations that the stores are made of.

Every operation is relative to an open directory, so nobody can swap the directory underneath. Bytes are
on the medium when :meth:`Directory.write` returns; names only after :meth:`Directory.sync`.
Everything here raises OSError; the stores turn it into their own error with :func:`storage_errors`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.wire.errors import StateError

_REASONS: Final = {
    errno.ENOSPC: ("full", "the disk is full"),
    errno.EDQUOT: ("full", "the disk quota is used up"),
    errno.EROFS: ("read-only", "the file system is read-only"),
    errno.EACCES: ("denied", "permission denied"),
    errno.EPERM: ("denied", "operation not permitted"),
}


STATE_MODE: Final = 0o711
"""Of the state directory: other programs pass through it to the credentials that they use, but list nothing;
the record (0600) and the wrapped keys (0700) stay closed to them."""


class Directory:
    """One open directory. Use it as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    @classmethod
    def open(cls, path: Path) -> Directory:
        """Open *path*. Raises FileNotFoundError or NotADirectoryError."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @classmethod
    def make(cls, path: Path, mode: int) -> Directory:
        """Open *path*; make it, with *mode*, and its parents where they are missing."""
        try:
            return cls.open(path)
        except FileNotFoundError:
            with cls.make(path.absolute().parent, 0o755) as parent:
                return parent.child(path.name, mode)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def child(self, name: str, mode: int) -> Directory:
        """Open the directory *name*; make it durably, with *mode*, if it is missing."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return Directory(os.open(name, flags, dir_fd=self._fd))
        except FileNotFoundError:
            os.mkdir(name, mode, dir_fd=self._fd)
        opened = Directory(os.open(name, flags, dir_fd=self._fd))
        os.fchmod(opened._fd, mode)  # what mkdir sets depends on the umask
        self.sync()
        return opened

    def mode(self) -> int:
        """Permission bits of the directory itself."""
        return stat.S_IMODE(os.fstat(self._fd).st_mode)

    def access(self, name: str) -> tuple[int, int, int]:
        """User, group and permission bits of the file *name* itself. Raises FileNotFoundError."""
        found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    def names(self) -> frozenset[str]:
        return frozenset(os.listdir(self._fd))  # noqa: PTH208 (pathlib has no way by descriptor)

    def read(self, name: str, limit: int) -> bytes | None:
        """At most *limit* + 1 bytes of the regular file *name*; None if there is no such file."""
        try:
            # O_NONBLOCK: a fifo in the place of the file must not hang the agent.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", name)
            return file.read(limit + 1)

    def write(self, name: str, data: bytes, mode: int, owner: tuple[int, int] = (-1, -1)) -> None:
        """A new file *name* in the place of any other, with *data* on the medium.

        *owner* is user and group; -1 leaves what the file system gives.
        """
        self.remove(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, mode, dir_fd=self._fd)
        try:
            if not _owned(fd, owner):  # a sandbox may forbid the call, also where it changes nothing
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, name: str, also: str) -> None:
        """Give the file *name* the second name *also*, replacing what had it."""
        temporary = f"{also}.new"
        self.remove(temporary)
        os.link(name, temporary, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        self.rename(temporary, also)
        self.remove(temporary)  # rename leaves both names if they were one file already

    def point(self, name: str, target: str) -> None:
        """Make the symbolic link *name* lead to *target*, in one step for every reader."""
        temporary = f"{name}.new"
        self.remove(temporary)
        os.symlink(target, temporary, dir_fd=self._fd)
        self.rename(temporary, name)

    def target(self, name: str) -> str | None:
        """Where the symbolic link *name* leads; None if there is none."""
        try:
            return os.readlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return None

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove the file *name* if it exists."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return

    def remove_tree(self, name: str) -> None:
        """Remove the directory *name* and the files in it; it must hold no directory. No error if missing."""
        if name not in self.names():
            return
        with self.child(name, 0o700) as doomed:
            for entry in doomed.names():
                doomed.remove(entry)
        os.rmdir(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Make every change of names in this directory durable. Costs no write if there was none."""
        os.fsync(self._fd)


def _owned(fd: int, owner: tuple[int, int]) -> bool:
    """Whether the file has this user and group already; -1 is content with any."""
    found = os.fstat(fd)
    return owner[0] in {-1, found.st_uid} and owner[1] in {-1, found.st_gid}


@contextmanager
def storage_errors(area: str, action: str) -> Iterator[None]:
    """Turn OSError into StateError ``<area>.full|read-only|denied|io``, saying what *action* failed."""
    try:
        yield
    except OSError as error:
        reason, text = _REASONS.get(error.errno or 0, ("io", error.strerror or "input/output error"))
        where = f" ({error.filename})" if error.filename else ""
        raise StateError(f"{area}.{reason}", f"cannot {action}: {text}{where}") from error
