"""The drive that forgets: which writes a power cut may take, and how a log of them ends."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from machine import cache
from machine.cache import DISCARD, FLUSH, FUA, SECTOR, Loss

DISK = 8 * SECTOR


def sector(letter: str) -> bytes:
    return letter.encode() * SECTOR


def entry(where: int, data: bytes = b"", flags: int = 0, *, count: int | None = None) -> bytes:
    """One entry of the log, as QEMU writes it: a header in a sector of its own, then the data."""
    number = len(data) // SECTOR if count is None else count
    return struct.pack("<QQQQ", where, number, flags, len(data)).ljust(SECTOR, b"\0") + data


def log(*entries: bytes, flushed: int = 0, magic: int = cache.MAGIC) -> bytes:
    head = struct.pack("<QQQI", magic, 1, flushed, SECTOR).ljust(SECTOR, b"\0")
    return head + b"".join(entries)


def after(directory: Path, content: bytes, seed: int = 0) -> tuple[str, Loss]:
    """The disk's sectors, a letter each ("-" where nothing was written), and what was lost."""
    source, disk = directory / "log", directory / "disk"
    source.write_bytes(content)
    disk.write_bytes(b"-" * DISK)
    loss = cache.cut(source, disk, Random(seed))
    whole = disk.read_bytes()
    sectors = [whole[at : at + SECTOR] for at in range(0, DISK, SECTOR)]
    assert len(whole) == DISK
    assert all(len(set(each)) == 1 for each in sectors)
    return "".join(chr(each[0]) if each[0] else "0" for each in sectors), loss


def outcomes(directory: Path, content: bytes) -> set[str]:
    """All that may be left, over many cuts."""
    return {after(directory, content, seed)[0] for seed in range(40)}


def test_what_was_flushed_is_safe_and_the_rest_is_up_to_chance(tmp_path: Path) -> None:
    content = log(entry(0, sector("a")), entry(0, flags=FLUSH), entry(1, sector("b")), entry(2, sector("c")))
    assert outcomes(tmp_path, content) == {"a-------", "ab------", "a-c-----", "abc-----"}


def test_a_write_that_goes_to_the_medium_at_once_is_safe_and_takes_no_other_along(tmp_path: Path) -> None:
    content = log(entry(0, sector("a")), entry(1, sector("b"), FUA))
    assert outcomes(tmp_path, content) == {"-b------", "ab------"}


def test_a_write_with_a_flush_before_it_is_itself_not_flushed(tmp_path: Path) -> None:
    content = log(entry(0, sector("a")), entry(1, sector("b"), FLUSH))
    assert outcomes(tmp_path, content) == {"a-------", "ab------"}


def test_later_writes_win_where_both_are_safe(tmp_path: Path) -> None:
    content = log(entry(3, sector("a") + sector("b")), entry(4, sector("c")), entry(0, flags=FLUSH))
    left, loss = after(tmp_path, content)
    assert left == "---ac---"
    assert loss == Loss(safe=2)


def test_discarded_sectors_are_zeros(tmp_path: Path) -> None:
    content = log(entry(0, sector("a") * 3), entry(1, flags=DISCARD, count=1), entry(0, flags=FLUSH))
    assert after(tmp_path, content)[0] == "a0a-----"


def test_every_write_is_counted_once(tmp_path: Path) -> None:
    content = log(entry(0, sector("a")), entry(0, flags=FLUSH), *(entry(n, sector("b")) for n in range(1, 8)))
    for seed in range(20):
        left, loss = after(tmp_path, content, seed)
        assert (loss.safe, loss.kept, loss.lost) == (1, left.count("b"), left.count("-"))


def test_a_cut_repeats_by_its_seed(tmp_path: Path) -> None:
    content = log(*(entry(n, sector("b")) for n in range(8)))
    assert after(tmp_path, content, 5) == after(tmp_path, content, 5)


def test_the_last_entry_may_be_half_written(tmp_path: Path) -> None:
    whole = log(entry(0, sector("a")), entry(0, flags=FLUSH), flushed=2)
    for half in (entry(1, sector("b") * 2)[: 2 * SECTOR], entry(1, sector("b"))[:100], bytes(SECTOR)):
        assert after(tmp_path, whole + half)[0] == "a-------"


def test_a_cut_before_the_first_write_leaves_the_disk_as_it_was(tmp_path: Path) -> None:
    for begun in (b"", log()[:100]):
        assert after(tmp_path, begun) == ("--------", Loss())


def test_a_log_that_lost_what_was_flushed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ends after 1 entries, the disk had flushed 2"):
        after(tmp_path, log(entry(0, sector("a")), flushed=2))


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no log of writes"):
        after(tmp_path, log(magic=1))
