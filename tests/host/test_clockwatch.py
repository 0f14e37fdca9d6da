"""The watch over the host's clock: what the kernel says of a timer, and what clocks say without one.

Nobody may set the clock of the machine that runs the tests, so ``strace`` makes the kernel's answer
(FIELD-LESSONS 2).
"""

from __future__ import annotations

import errno
import select
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.host import clockwatch
from holdfast.host.clockwatch import ClockWatch
from tools import need


def test_an_undisturbed_clock_says_nothing_and_wakes_nobody() -> None:
    with ClockWatch() as watch:
        assert watch.descriptor is not None
        assert select.select([watch.descriptor], [], [], 0)[0] == []
        assert not watch.was_set()
        info = Path(f"/proc/self/fdinfo/{watch.descriptor}").read_text()
        flags = next(line for line in info.splitlines() if line.startswith("settime flags:"))
    assert int(flags.split()[2], 8) == 3, "absolute, and cancelled when the clock is set"
    assert watch.descriptor is None
    watch.close()


def test_a_cancelled_timer_is_told_once_and_watched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(_descriptor: int, _length: int) -> bytes:
        raise OSError(errno.ECANCELED, "Operation canceled")

    with ClockWatch() as watch:
        with monkeypatch.context() as patched:
            patched.setattr(clockwatch.os, "read", cancelled)
            assert watch.was_set()
        assert watch.descriptor is not None
        assert not watch.was_set()


def test_another_error_of_the_timer_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int, _length: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with ClockWatch() as watch, monkeypatch.context() as patched:
        patched.setattr(clockwatch.os, "read", broken)
        with pytest.raises(OSError, match="Input/output"):
            watch.was_set()


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3.0, 1e9])
@pytest.mark.parametrize("lacking", ["create", "settime"])
def test_without_a_timer_the_clocks_are_compared(
    monkeypatch: pytest.MonkeyPatch, jump: float, lacking: str
) -> None:
    if lacking == "create":
        monkeypatch.setattr(clockwatch, "_open_timer", lambda: None)
    else:
        monkeypatch.setattr(clockwatch, "_set_timer", lambda _descriptor: False)
    now = {"wall": 1e9, "running": 5.0}
    watch = ClockWatch(wall=lambda: now["wall"], running=lambda: now["running"])
    assert watch.descriptor is None
    now["wall"] += 60.5
    now["running"] += 60.0  # a clock that drifts was not set
    assert not watch.was_set()
    now["wall"] += jump
    assert watch.was_set()
    assert not watch.was_set()


def test_the_kernel_s_own_word_for_it() -> None:
    script = (
        "from holdfast.host.clockwatch import ClockWatch\n"
        "watch = ClockWatch()\n"
        "print(watch.was_set(), watch.was_set(), watch.was_set())\n"
    )
    command = [need("strace", "strace"), "-f", "-o", "/dev/null", "-P", "anon_inode:[timerfd]"]
    command += ["-e", "inject=read:error=ECANCELED:when=2", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


def test_it_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys, holdfast.host.clockwatch\n"
        "print(*({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names - {'__main__'}))\n"
        "print(*(m for m in sys.modules if m.startswith('holdfast')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    foreign, ours = done.stdout.splitlines()
    assert {n for n in foreign.split() if not n.startswith(("_", "sitecustom"))} <= {"holdfast"}
    assert set(ours.split()) == {"holdfast", "holdfast.host", "holdfast.host.clockwatch"}
