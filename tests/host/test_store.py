"""The device record survives power cuts, torn writes, flipped bits and full disks."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.host import durable, store
from holdfast.host.store import MAX_BYTES, MAX_QUARANTINED, Loaded, StateStore, seal, unseal
from holdfast.keys.api import KeyRef
from holdfast.life import record as life
from holdfast.life.record import DeviceRecord, Domain, Identity, encode
from holdfast.wire.errors import SchemaTooNew, StateCorrupt, StateError
from host.power_cut import CHANGES, Dead, PowerCut

T0 = datetime(2026, 11, 1, tzinfo=UTC)


def record(n: int) -> DeviceRecord:
    return DeviceRecord(T0 + timedelta(days=n), Domain(registrar=f"r{n}.example:8443"), (Identity("ldevid"),))


A, B, C = record(1), record(2), record(3)


@pytest.fixture(autouse=True)
def no_waiting_for_the_medium(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an fsync would keep is PowerCut's business; the medium of this machine only costs time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


def committed(home: Path, *records: DeviceRecord) -> StateStore:
    made = StateStore(home)
    for each in records:
        made.commit(each)
    return made


def snapshot(home: Path) -> dict[str, tuple[int, int, bytes]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in home.iterdir()}


def test_a_new_device_has_no_record_and_loading_makes_nothing(home: Path) -> None:
    assert StateStore(home).load() == Loaded(None, "")
    assert not home.exists()


def test_what_was_committed_is_loaded(home: Path) -> None:
    assert committed(home, A, B).load() == Loaded(B, "")
    assert unseal((home / "record.previous").read_bytes()) == A


def test_only_the_owner_may_read(home: Path) -> None:
    old = os.umask(0o022)
    try:
        committed(home, A, B)
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.stat().st_mode) == 0o711
    assert {stat.S_IMODE(p.stat().st_mode) for p in home.iterdir()} == {0o600}


def test_a_directory_that_others_may_write_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o770)
    with pytest.raises(StateError) as caught:
        StateStore(home).commit(A)
    assert caught.value.code == "state.exposed"
    assert list(home.iterdir()) == []


def test_the_same_record_again_writes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = committed(home, A, B)
    before = snapshot(home)
    cut = PowerCut(home, shadow(tmp_path))
    monkeypatch.setattr(durable, "os", cut)
    made.commit(B)
    assert cut.names == ["fsync"]  # of the directory: an earlier commit may have been killed before it
    assert snapshot(home) == before


# --- power cuts -----------------------------------------------------------------------------------------


def shadow(tmp_path: Path) -> Path:
    path = tmp_path / "shadow"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[DeviceRecord, ...]) -> int:
    with monkeypatch.context() as patch:
        home = tmp_path / "dry"
        made = committed(home, *before)
        home.mkdir(exist_ok=True)
        home.chmod(0o700)
        cut = PowerCut(home, shadow(tmp_path))
        patch.setattr(durable, "os", cut)
        made.commit(C)
        return cut.count


@pytest.mark.crash
@pytest.mark.parametrize("before", [(), (A,), (A, B)], ids=["first", "second", "third"])
@pytest.mark.parametrize("data", [False, True], ids=["", "torn"])
@pytest.mark.parametrize("names", [False, True], ids=["", "names-lost"])
def test_a_cut_at_every_operation_leaves_the_old_or_the_new_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[DeviceRecord, ...], data: bool, names: bool
) -> None:
    total = operations(tmp_path, monkeypatch, before)
    assert total >= 8
    old = before[-1] if before else None
    outcomes = set()
    for k in range(total + 1):
        home = tmp_path / f"cut-{k}" / "state"
        home.mkdir(parents=True, mode=0o700)
        made = committed(home, *before)
        cut = PowerCut(home, shadow(tmp_path), at=k)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", cut)
            if k == total:
                made.commit(C)
            else:
                with pytest.raises(Dead):
                    made.commit(C)
        cut.lose(data=data, names=names)
        loaded = StateStore(home).load()
        assert loaded.record in (old, C), k
        assert loaded.note == "", k
        outcomes.add(loaded.record)
        if k == total:
            assert loaded.record == C, "durable on return"
        # The next attempt ends where an uncut one does.
        StateStore(home).commit(C)
        assert StateStore(home).load() == Loaded(C, "")
        assert not list(home.glob("*.new")), k
        if old is not None:
            assert unseal((home / "record.previous").read_bytes()) == old, k
    assert outcomes == {old, C}


@pytest.mark.crash
def test_a_real_process_killed_at_every_operation(tmp_path: Path) -> None:
    seen = set()
    for k in itertools.count():
        home = tmp_path / f"kill-{k}"
        committed(home, A, B)
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                cut = PowerCut(home, shadow(tmp_path), at=k)
                durable.os = cut  # type: ignore[assignment]
                StateStore(home).commit(C)
                os._exit(0)
            except Dead:
                os._exit(9)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        loaded = StateStore(home).load()
        assert loaded.record in (B, C)
        seen.add(loaded.record)
        if code == 0:
            assert loaded.record == C
            break
    assert seen == {B, C}


def test_what_was_loaded_is_durable(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit killed before its last sync is visible; acting on it and then losing it would break rule 2."""
    home.mkdir(parents=True, mode=0o700)
    made = committed(home, A)
    cut = PowerCut(home, shadow(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", cut)
        patch.setattr(durable.Directory, "sync", lambda _: None)
        made.commit(B)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", cut)
        assert made.load().record == B
    cut.lose(data=True, names=True)
    assert made.load().record == B


# --- damage ---------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_falls_back_and_says_so(home: Path) -> None:
    made = committed(home, A, B)
    path = home / "record"
    image = path.read_bytes()
    for position in range(len(image)):
        damaged = bytearray(image)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        loaded = made.load()
        assert loaded.record == A, position
        assert "used record.previous" in loaded.note


def test_every_truncation_and_every_tail_falls_back(home: Path) -> None:
    made = committed(home, A, B)
    path = home / "record"
    image = path.read_bytes()
    for length in range(len(image)):
        path.write_bytes(image[:length])
        loaded = made.load()
        assert loaded.record == A, length
        assert ("bytes where" in loaded.note) == (length > image.index(b"\n"))
    for tail in (b"\n", b"\0" * 4096, image):
        path.write_bytes(image + tail)
        assert made.load().record == A


@given(st.binary(max_size=400))
def test_no_bytes_give_another_error(data: bytes) -> None:
    for image in (data, seal(data), seal(encode(A))[: len(data)] + data):
        try:
            unseal(image)
        except (StateCorrupt, SchemaTooNew):
            continue


def test_a_missing_record_falls_back(home: Path) -> None:
    made = committed(home, A, B)
    (home / "record").unlink()
    assert made.load() == Loaded(A, "used record.previous (record: missing)")


def test_after_a_fall_back_the_damaged_record_does_not_replace_the_whole_one(home: Path) -> None:
    made = committed(home, A, B)
    (home / "record").write_bytes(b"x")
    made.commit(C)
    assert made.load() == Loaded(C, "")
    (home / "record").write_bytes(b"x")
    assert made.load().record == A


def test_the_same_record_again_mends_a_damaged_one(home: Path) -> None:
    made = committed(home, A, B)
    image = (home / "record").read_bytes()
    (home / "record").write_bytes(image[:-1])
    made.commit(A)
    assert made.load() == Loaded(A, "")


def test_both_damaged_are_kept_aside_and_said(home: Path) -> None:
    made = committed(home, A, B)
    (home / "record").write_bytes(b"one")
    (home / "record.previous").write_bytes(b"two")
    with pytest.raises(StateCorrupt) as caught:
        made.load()
    assert caught.value.code == "state.corrupt"
    assert "record.corrupt-1, record.corrupt-2" in caught.value.detail
    assert (home / "record.corrupt-1").read_bytes() == b"one"
    assert (home / "record.corrupt-2").read_bytes() == b"two"
    loaded = made.load()
    assert loaded.record is None
    assert "record.corrupt-1, record.corrupt-2" in loaded.note


def test_quarantine_is_bounded_and_keeps_the_oldest(home: Path) -> None:
    made = StateStore(home)
    home.mkdir(mode=0o700)
    for n in range(MAX_QUARANTINED + 3):
        (home / "record").write_bytes(b"%d" % n)
        with pytest.raises(StateCorrupt):
            made.load()
    kept = {p.name: p.read_bytes() for p in home.iterdir()}
    assert len(kept) == MAX_QUARANTINED
    assert kept["record.corrupt-1"] == b"0"
    assert kept[f"record.corrupt-{MAX_QUARANTINED}"] == b"%d" % (MAX_QUARANTINED + 2)


# --- newer agents ---------------------------------------------------------------------------------------


def newer_schema() -> bytes:
    return seal(encode(B).replace(b'"schema":2', b'"schema":3'))


def newer_format() -> bytes:
    head = b"holdfast-record 2 3 "
    return head + sha256(head + b"abc").hexdigest().encode() + b"\nabc"


@pytest.mark.parametrize("newer", [newer_schema, newer_format])
def test_a_newer_agents_record_is_neither_rolled_back_nor_overwritten(
    home: Path, newer: Callable[[], bytes]
) -> None:
    made = committed(home, A, B)
    (home / "record").write_bytes(newer())
    before = snapshot(home)
    with pytest.raises(SchemaTooNew):
        made.load()
    with pytest.raises(SchemaTooNew):
        made.commit(C)
    assert snapshot(home) == before


# --- a disk that refuses --------------------------------------------------------------------------------


class Refusing:
    """``os`` whose operation number *at* fails with *error*, and every later one of the same name too."""

    def __init__(self, at: int, error: int) -> None:
        self._at = at
        self._error = error
        self._name = ""
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def operation(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            self.count += 1
            if self.count == self._at:
                self._name = name
            if name == self._name:
                raise OSError(self._error, os.strerror(self._error))
            return real(*args, **kwargs)

        return operation


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errno.ENOSPC, "state.full", "the disk is full"),
        (errno.EDQUOT, "state.full", "quota"),
        (errno.EROFS, "state.read-only", "read-only"),
        (errno.EACCES, "state.denied", "permission denied"),
        (errno.EIO, "state.io", "Input/output error"),
    ],
)
def test_a_refused_commit_is_a_clear_error_and_harms_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: int, code: str, text: str
) -> None:
    counting = Refusing(0, error)
    with monkeypatch.context() as patch:
        made = committed(home, A, B)
        patch.setattr(durable, "os", counting)
        made.commit(C)
    total = counting.count
    assert total >= 8
    for at in range(1, total + 1):
        shutil.rmtree(home, ignore_errors=True)
        made = committed(home, A, B)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", Refusing(at, error))
            with pytest.raises(StateError) as caught:
                made.commit(C)
        assert caught.value.code == code
        assert text in caught.value.detail
        assert str(home) in caught.value.detail
        # Only when the very last sync fails are the new names in place already.
        assert made.load() == Loaded(B if at < total else C, ""), at
        made.commit(C)
        assert made.load() == Loaded(C, "")


def test_a_disk_that_is_really_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself refuses: /dev/full stands behind the file that is written."""
    made = committed(home, A)

    def full(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            return os.open("/dev/full", os.O_WRONLY)
        return os.open(path, flags, *args, **kwargs)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return {"open": full, "fchmod": lambda *_: None}.get(name) or getattr(os, name)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", Full())
        with pytest.raises(StateError) as caught:
            made.commit(B)
    assert caught.value.code == "state.full"
    assert made.load() == Loaded(A, "")


def test_a_link_or_a_fifo_in_the_place_of_the_record_is_refused(home: Path, tmp_path: Path) -> None:
    made = committed(home, A)
    secret = tmp_path / "elsewhere"
    secret.write_bytes(seal(encode(B)))
    (home / "record").unlink()
    (home / "record").symlink_to(secret)
    with pytest.raises(StateError):
        made.load()
    (home / "record").unlink()
    os.mkfifo(home / "record")
    with pytest.raises(StateError) as caught:
        made.load()
    assert caught.value.code == "state.io"


def test_a_refused_write_gives_the_room_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = committed(home, A)
    refusing = Refusing(0, errno.ENOSPC)
    refusing._name = "write"
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", refusing)
        with pytest.raises(StateError):
            made.commit(B)
    assert [p.name for p in home.iterdir()] == ["record"]


def test_a_worn_medium_falls_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = committed(home, A, B)
    real = durable.Directory.read

    def worn(directory: durable.Directory, name: str, limit: int) -> bytes | None:
        if name == "record":
            raise OSError(errno.EIO, "Input/output error", name)
        return real(directory, name, limit)

    monkeypatch.setattr(durable.Directory, "read", worn)
    assert made.load() == Loaded(A, "used record.previous (record: the medium cannot be read)")


def test_a_record_beyond_the_bound_is_not_written(home: Path) -> None:
    made = committed(home, A)
    with pytest.raises(StateError) as caught:
        made.commit(replace(B, domain=Domain(voucher=b"\0" * MAX_BYTES)))
    assert caught.value.code == "state.too-large"
    assert made.load() == Loaded(A, "")


def test_an_endless_file_is_not_read_whole(home: Path) -> None:
    made = committed(home, A, B)
    with (home / "record").open("r+b") as file:
        file.truncate(1 << 40)
    assert made.load().record == A


# --- round trip -----------------------------------------------------------------------------------------

times = st.integers(86_400, 253_402_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
records = st.builds(
    DeviceRecord,
    floor=times,
    domain=st.builds(
        Domain,
        anchors=st.lists(
            st.builds(life.Anchor, st.binary(max_size=40), st.sampled_from(life.Provenance), times),
            max_size=3,
        ).map(tuple),
        deadline=st.none() | times,
        intermediates=st.lists(st.binary(max_size=40), max_size=2).map(tuple),
    ),
    identities=st.lists(
        st.builds(
            Identity,
            st.text(max_size=8),
            credential=st.builds(life.Credential),
            transaction=st.builds(life.Transaction, deadline=st.none() | times),
            retiring=st.lists(st.text(max_size=10).map(KeyRef), max_size=3).map(tuple),
            schedule=st.builds(life.Schedule, due=st.none() | times, trouble=st.none()),
        ),
        max_size=3,
    ).map(tuple),
)


@given(records)
def test_every_record_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, given_record: DeviceRecord
) -> None:
    made = StateStore(tmp_path_factory.mktemp("trip") / "state")
    made.commit(given_record)
    assert made.load() == Loaded(given_record, "")
    assert store.unseal(seal(encode(given_record))) == given_record
