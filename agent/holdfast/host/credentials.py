"""The files that other programs use: a chain, the anchors, and a key reference (ARCHITECTURE §5 rule 3).

::

    <directory>/<identity>/generation-3/{chain.pem, anchors.pem, key.pem, key.uri}
    <directory>/<identity>/current  -> generation-3      swapped in one step
    <directory>/<identity>/previous -> generation-2      what rolling back returns to

A directory ``generation-N`` is complete whenever it has that name: it is made and removed under another.
Every operation can be cut off anywhere and repeated. Readers of several files resolve ``current`` once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.durable import Directory, storage_errors
from holdfast.wire.errors import LocalProtocolError, StateError
from holdfast.wire.model import Chain

UNCHANGED: Final = -1
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
CHAIN: Final = "chain.pem"
MAX_FILE: Final = 1 << 20
_UNFINISHED: Final = ".new"
_IDENTITY: Final = re.compile(r"[a-z0-9-]{1,32}")
_GENERATION: Final = re.compile(r"generation-([0-9]{1,9})(\.old)?")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read the files: user and group numbers (UNCHANGED: what the file system gives), ``mode`` of
    chain and anchors, ``key_mode`` of the key reference."""

    uid: int = UNCHANGED
    gid: int = UNCHANGED
    mode: int = 0o644
    key_mode: int = 0o640

    def mode_of(self, file: str) -> int:
        """The mode of *file*."""
        return self.key_mode if file == "key.pem" else self.mode

    def holds(self, file: str, found: tuple[int, int, int]) -> bool:
        """Whether *found* (user, group, mode) of *file* is as wanted."""
        uid, gid, mode = found
        return self.uid in {UNCHANGED, uid} and self.gid in {UNCHANGED, gid} and mode == self.mode_of(file)


class CredentialFiles:
    """The files of *identity* below *directory*. Raises StateError ``credentials.*`` if the disk refuses."""

    def __init__(self, directory: Path, identity: str) -> None:
        if not _IDENTITY.fullmatch(identity):
            raise LocalProtocolError("credentials.name", f"{identity!r} cannot name a directory")
        self._path = directory / identity

    @property
    def current_directory(self) -> Path:
        """The path that other programs are configured with."""
        return self._path / CURRENT

    def current(self) -> int | None:
        """The generation that other programs see; None before the first."""
        with storage_errors("credentials", f"read {self._path}"):
            try:
                directory = Directory.open(self._path)
            except FileNotFoundError:
                return None
            with directory:
                match = _GENERATION.fullmatch(directory.target(CURRENT) or "")
        return int(match[1]) if match and match[2] is None else None

    def stage(
        self,
        generation: int,
        chain: Chain,
        anchors: Chain,
        key_pem: bytes | None,
        access: Access = Access(),
        *,
        key_uri: str | None = None,
    ) -> None:
        """Write *generation* beside the others, durably and visible to nobody through ``current``.

        *chain* is leaf first. *key_pem* refers to a key in its hardware and is no secret by itself; it is not
        for everybody all the same. *key_uri* is the key's PKCS#11 URI. Staging the same again does nothing.
        """
        wanted = {CHAIN: _pem(chain), "anchors.pem": _pem(anchors)}
        if key_pem is not None:
            wanted["key.pem"] = key_pem
        if key_uri is not None:
            wanted["key.uri"] = key_uri.encode("ascii") + b"\n"
        name = f"generation-{generation}"
        with self._open(f"stage generation {generation}") as home:
            if name in home.names():
                if _holds(home, name, wanted, access):
                    home.sync()  # it may have come from an attempt that was cut off before its sync
                    return
                _clear_the_name(home, name)
            home.remove_tree(name + _UNFINISHED)
            with home.child(name + _UNFINISHED, 0o755) as new:
                for file, data in wanted.items():
                    new.write(file, data, access.mode_of(file), (access.uid, access.gid))
                new.sync()
            home.rename(name + _UNFINISHED, name)
            home.sync()

    def promote(self, generation: int) -> None:
        """Make *generation* current, keep the one before for :meth:`rollback`, and remove all others.

        Raises StateError ``credentials.not-staged``. Promoting what is current only tidies up.
        """
        name = f"generation-{generation}"
        with self._open(f"promote generation {generation}") as home:
            if name not in home.names():
                raise StateError("credentials.not-staged", f"{self._path / name} does not exist")
            before = home.target(CURRENT)
            if before != name:
                if before is not None:
                    home.point(PREVIOUS, before)
                home.point(CURRENT, name)
            home.sync()  # before anything goes that an undone swap would need
            _retire(home)

    def rollback(self, generation: int) -> int | None:
        """Take back the promotion of *generation*: ``current`` leads to the one before, or is gone if there
        was none. Does nothing if *generation* is not current. Returns the generation that is current now."""
        with self._open(f"roll back generation {generation}") as home:
            if home.target(CURRENT) == f"generation-{generation}":
                before = home.target(PREVIOUS)
                if before is not None and before in home.names() and before != home.target(CURRENT):
                    home.point(CURRENT, before)
                else:
                    home.remove(CURRENT)
            home.sync()
        return self.current()

    def remove(self) -> None:
        """Take everything away, the links first. Does nothing where there is nothing."""
        if not self._path.is_dir():
            return
        with self._open("remove everything") as home:
            home.remove(CURRENT)
            home.remove(PREVIOUS)
            home.sync()
            for name in sorted(home.names()):
                if _GENERATION.fullmatch(name.removesuffix(_UNFINISHED)):
                    _discard(home, name)
            home.sync()
        with suppress(OSError):  # somebody else's file keeps it
            self._path.rmdir()

    @contextmanager
    def _open(self, action: str) -> Iterator[Directory]:
        with (
            storage_errors("credentials", f"{action} in {self._path}"),
            Directory.make(self._path, 0o755) as home,
        ):
            yield home


def _pem(chain: Chain) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def _holds(home: Directory, name: str, wanted: Mapping[str, bytes], access: Access) -> bool:
    """Whether the generation *name* has these files, with this content and access, and no others."""
    with home.child(name, 0o755) as generation:
        return generation.names() == wanted.keys() and all(
            access.holds(file, generation.access(file)) and generation.read(file, MAX_FILE) == data
            for file, data in wanted.items()
        )


def _clear_the_name(home: Directory, name: str) -> None:
    """Free *name* for other content. If other programs use it (numbers started anew after the record was
    lost), a copy takes its place first."""
    if home.target(CURRENT) == name:
        copy = f"{name}.old"
        home.remove_tree(copy)
        home.remove_tree(copy + _UNFINISHED)
        with home.child(copy + _UNFINISHED, 0o755) as kept:
            with home.child(name, 0o755) as old:
                for file in old.names():
                    uid, gid, mode = old.access(file)
                    kept.write(file, old.read(file, MAX_FILE) or b"", mode, (uid, gid))
            kept.sync()
        home.rename(copy + _UNFINISHED, copy)
        home.point(CURRENT, copy)
        home.sync()
    _discard(home, name)


def _retire(home: Directory) -> None:
    kept = {home.target(CURRENT), home.target(PREVIOUS)}
    for name in sorted(home.names() - kept):
        if _GENERATION.fullmatch(name.removesuffix(_UNFINISHED)):
            _discard(home, name)


def _discard(home: Directory, name: str) -> None:
    """Remove a generation; half removed it no longer has the name of a complete one."""
    if not name.endswith(_UNFINISHED):
        home.remove_tree(name + _UNFINISHED)
        home.rename(name, name + _UNFINISHED)
        # Else a cut could bring the name back over a half emptied directory.
        home.sync()
        name += _UNFINISHED
    home.remove_tree(name)
