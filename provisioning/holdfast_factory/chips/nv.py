"""Non-volatile storage of a TPM: reading, and writing so that an owner cannot undo it.

An index that the platform hierarchy defines outlives TPM2_Clear and can be undefined by the platform alone,
which firmware closes before an owner's software runs. Where it was closed before the line could use it, the
owner hierarchy defines the index: an owner then cannot rewrite it once it is locked, but can remove it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.wire.errors import KeyStoreError
from holdfast_factory.chips import commands
from holdfast_factory.chips.commands import OWNER, PLATFORM, Answer, Command
from holdfast_factory.chips.dialogue import Answers, Batch, Dialogue, TpmRefusal

_PP_WRITE, _OWNER_WRITE, _WRITE_DEFINE = 1 << 0, 1 << 1, 1 << 13
_WRITE_LOCKED, _NO_DA, _WRITTEN, _PLATFORM_CREATE = 1 << 11, 1 << 25, 1 << 29, 1 << 30
_PP_READ, _OWNER_READ, _AUTH_READ = 1 << 16, 1 << 17, 1 << 18
_READABLE: Final = _PP_READ | _OWNER_READ | _AUTH_READ | _NO_DA
_CLOSED: Final = (0x85, 0x8E, 0xA2, 0x12F, 0x9C)  # hierarchy off, wrong authorisation, unavailable
_MOST_OCTETS: Final = 8192


@dataclass(frozen=True, slots=True)
class Space:
    """An NV index as NV_ReadPublic tells of it."""

    index: int
    attributes: int
    size: int

    @property
    def written(self) -> bool:
        return bool(self.attributes & _WRITTEN)

    @property
    def locked(self) -> bool:
        return bool(self.attributes & _WRITE_LOCKED)

    @property
    def by_platform(self) -> bool:
        return bool(self.attributes & _PLATFORM_CREATE)

    @property
    def authority(self) -> int:
        """Who defined it, and may write, lock and undefine it if nobody else may."""
        return PLATFORM if self.by_platform else OWNER

    @property
    def reader(self) -> int:
        """By whose empty authorisation it is read. Raises KeyStoreError ``factory.nv-closed``."""
        for bit, handle in ((_AUTH_READ, self.index), (_OWNER_READ, OWNER), (_PP_READ, PLATFORM)):
            if self.attributes & bit:
                return handle
        raise KeyStoreError("factory.nv-closed", f"NV {self.index:#010x} is read by a policy only")


def space(index: int, answer: Answer) -> Space:
    """Read the answer to NV_ReadPublic."""
    octets = answer.read()
    octets.number(2)
    octets.take(4 + 2)
    attributes = octets.number(4)
    octets.sized()
    return Space(index, attributes, octets.number(2))


def parts(size: int, most: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the pieces in which a TPM moves *size* octets, *most* at a time."""
    for start in range(0, min(size, _MOST_OCTETS), most):
        yield start, min(most, size - start)


def reading(found: Space, most: int) -> Batch:
    """The commands that read all of *found*; nothing for what was never written."""
    if not found.written:
        return ()
    return tuple(
        commands.nv_read(found.reader, found.index, length, start)
        for start, length in parts(found.size, most)
    )


def content(answers: Answers) -> bytes:
    """What those commands gave."""
    return b"".join(answer.read().sized() for answer in answers)


def without_padding(data: bytes) -> bytes:
    """One certificate, without what some makers leave behind it."""
    if data[:2] == b"\x30\x82":
        return data[: 4 + int.from_bytes(data[2:4], "big")]
    return data


def writing(authority: int, index: int, data: bytes, most: int) -> Batch:
    """Define *index* for exactly *data* and write it: open to be written anew until it is locked."""
    platform = authority == PLATFORM
    who = _PP_WRITE | _PLATFORM_CREATE if platform else _OWNER_WRITE
    define = commands.nv_define(authority, index, _READABLE | _WRITE_DEFINE | who, len(data))
    pieces = (
        commands.nv_write(authority, index, data[start : start + length], start)
        for start, length in parts(len(data), most)
    )
    return (define, *pieces)


def put(wanted: dict[int, bytes], defined: frozenset[int], most: int) -> Dialogue[dict[int, Space]]:
    """Have *wanted* in NV (content by index), whatever an earlier try left of it; where it is then.

    Raises KeyStoreError ``factory.nv-taken`` if an index is locked with other content.
    """
    state = yield from look(tuple(i for i in wanted if i in defined), most)
    spaces: dict[int, Space] = {}
    missing: dict[int, bytes] = {}
    clear: list[Command] = []
    for index, data in wanted.items():
        there, holds = state.get(index, (None, b""))
        if there is not None and holds == data:
            spaces[index] = there
            continue
        if there is not None and there.locked:
            raise KeyStoreError("factory.nv-taken", f"NV {index:#010x} is locked and holds something else")
        if there is not None:
            clear.append(commands.nv_undefine(there.authority, index))
        missing[index] = data
    if missing:
        authority = yield from _write(tuple(clear), missing, most)
        who = _PLATFORM_CREATE if authority == PLATFORM else 0
        spaces |= {i: Space(i, _READABLE | _WRITTEN | who, len(data)) for i, data in missing.items()}
    return spaces


def look(indices: tuple[int, ...], most: int) -> Dialogue[dict[int, tuple[Space, bytes]]]:
    """Attributes and content of defined *indices*."""
    if not indices:
        return {}
    answers = yield tuple(map(commands.nv_read_public, indices))
    spaces = [space(index, answer) for index, answer in zip(indices, answers, strict=True)]
    batches = [reading(each, most) for each in spaces]
    flat = tuple(command for batch in batches for command in batch)
    received = iter((yield flat) if flat else ())
    return {
        each.index: (each, content(tuple(next(received) for _ in batch)))
        for each, batch in zip(spaces, batches, strict=True)
    }


def _write(clear: Batch, missing: dict[int, bytes], most: int) -> Dialogue[int]:
    """By the platform hierarchy; where it is closed, by the owner's. Returns which it was."""

    def all_of(authority: int) -> Batch:
        return tuple(c for index, data in missing.items() for c in writing(authority, index, data, most))

    try:
        yield (*clear, *all_of(PLATFORM))
    except TpmRefusal as refusal:
        if not refusal.is_code(*_CLOSED) or len(refusal.done) != len(clear):
            raise
        yield all_of(OWNER)
        return OWNER
    return PLATFORM
