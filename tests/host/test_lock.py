"""Only one process works on a state directory."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.host import lock
from holdfast.host.lock import StateLock
from holdfast.wire.errors import StateError

_HOLD = """
import sys
from pathlib import Path
from holdfast.host.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateError) as caught, StateLock(tmp_path):
            pass
        assert caught.value.code == "state.locked"
        assert f"process {other.pid}" in caught.value.detail
        other.kill()
        other.wait()
        with StateLock(tmp_path):  # a killed holder leaves nothing behind
            pass


def test_the_lock_ends_with_its_block_even_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), StateLock(tmp_path):
        raise KeyError
    with StateLock(tmp_path):
        pass


def test_the_holder_is_unnamed_where_the_kernel_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PROC_LOCKS", tmp_path / "missing")
    with StateLock(tmp_path), pytest.raises(StateError, match="another process"), StateLock(tmp_path):
        pass


def test_locking_again_changes_nothing_on_disk(tmp_path: Path) -> None:
    with StateLock(tmp_path / "new"):
        pass
    before = (tmp_path / "new" / "lock").stat()
    with StateLock(tmp_path / "new"):
        pass
    after = (tmp_path / "new" / "lock").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, 0)
    assert stat.S_IMODE(after.st_mode) == 0o600


def test_a_place_that_cannot_be_locked_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError) as caught, StateLock(tmp_path / "file"):
        pass
    assert caught.value.code == "state.io"
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError), StateLock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with StateLock(tmp_path), pytest.raises(StateError), StateLock(tmp_path):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
