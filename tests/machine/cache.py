"""A drive's volatile cache, and what a power cut does to it.

``kill -9`` of QEMU loses what the guest's kernel had not handed to its disk. A real cut loses more: what the
drive had acknowledged, but not yet flushed. So QEMU logs each write and each flush in the order of their
completion (its ``blklogwrites``, the format of dm-log-writes), and the disk is made from that log: all
that a flush came after or that had to go to the medium at once (FUA), and of the rest what chance chooses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import BinaryIO

MAGIC = 0x6A736677736872
SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Write:
    """*length* octets for *offset* of the disk, which stand at *data* in the log. ``data`` None: zeros."""

    offset: int
    length: int
    flags: int
    data: int | None


def writes(log: BinaryIO) -> Iterator[Write]:
    """All entries of *log*, in order. What follows the last is half written: QEMU was killed while it wrote.

    Fails where entries are missing that stood there at the last flush: then the log itself was cut off.
    """
    size = log.seek(0, 2)
    log.seek(0)
    if size < SECTOR:  # power went away before the guest asked its disk for anything
        return
    magic, version, flushed, sector = _SUPER.unpack(log.read(_SUPER.size))
    assert (magic, version) == (MAGIC, 1), f"no log of writes: {magic:x}, {version}"
    assert sector == SECTOR
    position, number = SECTOR, 0
    while position + SECTOR <= size:
        log.seek(position)
        where, count, flags, _ = _ENTRY.unpack(log.read(_ENTRY.size))
        position += SECTOR
        data = None if flags & DISCARD else position
        end = position + (count * SECTOR if data is not None else 0)
        if end > size or not (count or flags):
            break
        yield Write(where * SECTOR, count * SECTOR, flags, data)
        position, number = end, number + 1
    assert number >= flushed, f"the log ends after {number} entries, the disk had flushed {flushed}"


@dataclass
class Loss:
    """What became of a disk: writes that were safe, that were lucky, and that were lost."""

    safe: int = 0
    kept: int = 0
    lost: int = 0


def cut(log: Path, disk: Path, chance: Random) -> Loss:
    """Make *disk*, which is as it was when *log* began, what a power cut at the end of *log* leaves of it."""
    loss = Loss()
    waiting: list[Write] = []
    with log.open("rb") as source, disk.open("r+b") as target:
        for write in writes(source):
            if write.flags & FLUSH:
                loss.safe += _apply(waiting, source, target)
                waiting = []
            if write.length:
                if write.flags & FUA:
                    loss.safe += _apply([write], source, target)
                else:
                    waiting.append(write)
        share = chance.random()
        lucky = [write for write in waiting if chance.random() < share]
        loss.kept = _apply(lucky, source, target)
        loss.lost = len(waiting) - len(lucky)
    return loss


def _apply(some: list[Write], source: BinaryIO, target: BinaryIO) -> int:
    for write in some:
        target.seek(write.offset)
        if write.data is None:
            target.write(bytes(write.length))
        else:
            source.seek(write.data)
            target.write(source.read(write.length))
    return len(some)
