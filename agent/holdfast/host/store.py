"""The device record on disk (ARCHITECTURE §5 rule 4): durable on return, never torn, one generation back.

``record`` is a header line and the JSON text of :func:`holdfast.life.record.encode`::

    holdfast-record 1 <payload bytes> <SHA-256 hex>\\n

The digest covers the header before it as well, so that a flipped bit in the version is not taken for a
newer format. ``record.previous`` is the generation before. At every instant at least one of them is whole.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from holdfast.host.durable import STATE_MODE, Directory, storage_errors
from holdfast.life.record import DeviceRecord, decode, encode
from holdfast.wire.errors import SchemaTooNew, StateCorrupt, StateError

CURRENT: Final = "record"
PREVIOUS: Final = "record.previous"
MAX_BYTES: Final = 1 << 20
MAX_QUARANTINED: Final = 8
_FORMAT: Final = 1
_HEADER: Final = re.compile(rb"(holdfast-record ([0-9]{1,9}) ([0-9]{1,9}) )([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the disk held. ``record`` is None on a device that has none; ``note`` says what was odd, or ""."""

    record: DeviceRecord | None
    note: str = ""


class StateStore:
    """The record in *directory*. Only the holder of :class:`~holdfast.host.lock.StateLock` commits."""

    def __init__(self, directory: Path) -> None:
        self._path = directory

    def load(self) -> Loaded:
        """The newest whole record, durable before it is returned.

        Raises StateCorrupt if there are records and none is whole: they are moved aside as
        ``record.corrupt-N`` and the next load starts afresh. SchemaTooNew is never answered with the
        previous record, which would undo what the newer agent did. Raises StateError if the disk fails.
        """
        with storage_errors("state", f"read the record in {self._path}"):
            try:
                directory = Directory.open(self._path)
            except FileNotFoundError:
                return Loaded(None)
            with directory:
                # A commit killed before its last sync is visible, but could still vanish under our feet.
                directory.sync()
                return _load(directory, set_aside=True)

    def peek(self) -> Loaded:
        """As :meth:`load` for one who only looks: nothing is synced and nothing moved aside."""
        with storage_errors("state", f"read the record in {self._path}"):
            try:
                directory = Directory.open(self._path)
            except FileNotFoundError:
                return Loaded(None)
            with directory:
                return _load(directory, set_aside=False)

    def commit(self, record: DeviceRecord) -> None:
        """Make *record* the current one; durable on return. The same record again writes nothing.

        Raises StateError if the disk refuses; the record before is then still loadable (if only the very
        last sync failed, the new one may be). Raises SchemaTooNew rather than overwrite the record of a
        newer agent.
        """
        image = seal(encode(record))
        with (
            storage_errors("state", f"write the record in {self._path}"),
            Directory.make(self._path, STATE_MODE) as directory,
        ):
            if directory.mode() & 0o022:
                raise StateError(
                    "state.exposed", f"others may write to {self._path}: remove their right (chmod 0700)"
                )
            _commit(directory, image)

    def set_aside(self) -> str:
        """Keep the current record under another name as well, because another one will take its place.

        Returns that name, "" if there is no record. Raises StateError.
        """
        with (
            storage_errors("state", f"set the record in {self._path} aside"),
            Directory.make(self._path, STATE_MODE) as directory,
        ):
            if CURRENT not in directory.names():
                return ""
            place = _free_place(directory, "other-hardware")
            directory.link(CURRENT, place)
            directory.sync()
            return place


def seal(payload: bytes) -> bytes:
    """*payload* as a file image. Raises StateError if it is longer than any load would accept."""
    if len(payload) > MAX_BYTES:
        raise StateError("state.too-large", f"the record has {len(payload)} bytes, the limit is {MAX_BYTES}")
    head = b"holdfast-record %d %d " % (_FORMAT, len(payload))
    return head + sha256(head + payload).hexdigest().encode() + b"\n" + payload


def unseal(image: bytes) -> DeviceRecord:
    """The record in a file image. Raises StateCorrupt, or SchemaTooNew."""
    match = _HEADER.match(image)
    if match is None:
        raise StateCorrupt("state.corrupt", "the header is damaged")
    head, version, length, digest = match.groups()
    payload = image[match.end() :]
    if len(payload) != int(length):
        raise StateCorrupt("state.corrupt", f"{len(payload)} bytes where {int(length)} were written")
    if sha256(head + payload).hexdigest().encode() != digest:
        raise StateCorrupt("state.corrupt", "the checksum does not match")
    if int(version) > _FORMAT:
        raise SchemaTooNew(
            "state.schema-too-new",
            f"the record has format {int(version)}, this agent reads {_FORMAT}: install the newer agent",
        )
    return decode(payload)


def _load(directory: Directory, *, set_aside: bool) -> Loaded:
    faults: list[str] = []
    found: list[str] = []
    for name in (CURRENT, PREVIOUS):
        try:
            image = _read(directory, name)
            if image is None:
                faults.append(f"{name}: missing")
                continue
            found.append(name)
            record = unseal(image)
        except StateCorrupt as error:
            found.append(name)
            faults.append(f"{name}: {error.detail}")
            continue
        return Loaded(record, f"used {name} ({'; '.join(faults)})" if faults else "")
    if found and not set_aside:
        raise StateCorrupt("state.corrupt", f"no whole record ({'; '.join(faults)})")
    if found:
        moved = _quarantine(directory, tuple(dict.fromkeys(found)))
        raise StateCorrupt("state.corrupt", f"{'; '.join(faults)}; kept aside as {', '.join(moved)}")
    aside = sorted(n for n in directory.names() if n.startswith(f"{CURRENT}.corrupt-"))
    return Loaded(None, f"no record; damaged ones stand aside as {', '.join(aside)}" if aside else "")


def _commit(directory: Directory, image: bytes) -> None:
    try:
        current = _read(directory, CURRENT)
        if current is not None:
            unseal(current)
    except StateCorrupt:
        current = None
    if current == image:
        directory.sync()
        return
    try:
        directory.write(f"{CURRENT}.new", image, 0o600)
    except OSError:
        directory.remove(f"{CURRENT}.new")  # a full disk needs the room back
        raise
    if current is not None:  # a damaged record never takes the place of a whole previous one
        directory.link(CURRENT, PREVIOUS)
    directory.rename(f"{CURRENT}.new", CURRENT)
    directory.sync()


def _read(directory: Directory, name: str) -> bytes | None:
    try:
        return directory.read(name, MAX_BYTES + 256)
    except OSError as error:
        if error.errno == errno.EIO:  # worn flash: the other generation may be readable
            raise StateCorrupt("state.corrupt", "the medium cannot be read") from error
        raise


def _quarantine(directory: Directory, names: tuple[str, ...]) -> list[str]:
    """Move *names* aside. Of the places the lowest free ones are used; when all are taken, the last."""
    moved: list[str] = []
    for name in names:
        place = _free_place(directory, "corrupt")
        directory.rename(name, place)
        moved.append(place)
    directory.sync()
    return moved


def _free_place(directory: Directory, why: str) -> str:
    """The lowest name that is free of those for records that stand aside; when all are taken, the last."""
    taken = directory.names()
    places = [f"{CURRENT}.{why}-{n}" for n in range(1, MAX_QUARANTINED + 1)]
    return next((p for p in places if p not in taken), places[-1])
