"""Three states of time, and a floor that holds."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from fake_clock import FakeClock
from holdfast.host import clock as clock_module
from holdfast.host.clock import (
    Clock,
    Policy,
    SystemClock,
    _Timex,
    host_synchronised,
    kernel_synchronised,
    timedated_synchronised,
)
from holdfast.wire.model import ClockState
from tools import need

BUILT = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def clock(now: datetime, marker: Path, policy: Policy = "auto", *, synchronised: bool = False) -> SystemClock:
    return SystemClock(BUILT, policy, wall=now.timestamp, synchronised=lambda: synchronised, marker=marker)


@pytest.mark.parametrize(
    ("policy", "synchronised", "marked", "expected"),
    [
        ("auto", False, False, ClockState.FLOOR_ONLY),
        ("auto", True, False, ClockState.TRUSTED),
        ("auto", False, True, ClockState.TRUSTED),
        ("trusted", False, False, ClockState.TRUSTED),
        ("untrusted", True, True, ClockState.FLOOR_ONLY),
    ],
)
def test_who_set_the_clock_decides(
    tmp_path: Path, policy: Policy, synchronised: bool, marked: bool, expected: ClockState
) -> None:
    marker = tmp_path / "synchronized"
    if marked:
        marker.touch()
    moment = clock(BUILT + DAY, marker, policy, synchronised=synchronised).moment(BUILT)
    assert moment.state is expected
    assert moment.now == BUILT + DAY
    assert moment.floor == BUILT


@pytest.mark.parametrize("policy", ["auto", "trusted", "untrusted"])
@pytest.mark.parametrize("floor", [BUILT - 100 * DAY, BUILT + 2 * DAY])
def test_below_the_floor_the_time_is_unknown_whoever_set_it(
    tmp_path: Path, policy: Policy, floor: datetime
) -> None:
    wrong = max(BUILT, floor) - timedelta(seconds=1)
    moment = clock(wrong, tmp_path / "none", policy, synchronised=True).moment(floor)
    assert moment.state is ClockState.UNKNOWN
    assert moment.now == moment.floor == max(BUILT, floor)


def test_at_the_floor_exactly_the_clock_runs(tmp_path: Path) -> None:
    assert clock(BUILT, tmp_path / "none").moment(BUILT).state is ClockState.FLOOR_ONLY


def test_a_floor_in_another_zone_is_the_same_moment(tmp_path: Path) -> None:
    floor = (BUILT + DAY).astimezone(timezone(timedelta(hours=9)))
    moment = clock(BUILT + 2 * DAY, tmp_path / "none").moment(floor)
    assert moment.floor == BUILT + DAY
    assert moment.floor.utcoffset() == timedelta(0)


def test_the_kernel_is_asked_with_a_layout_that_it_knows() -> None:
    """adjtimex writes through a pointer: a structure too short would corrupt memory."""
    assert ctypes.sizeof(_Timex) >= 208
    script = (
        "import ctypes; from holdfast.host.clock import _Timex; t = _Timex(modes=0);"
        "r = ctypes.CDLL(None).adjtimex(ctypes.byref(t)); print(r, t.status)"
    )
    code, status = map(int, subprocess.check_output([sys.executable, "-c", script]).split())
    assert kernel_synchronised() is (code >= 0 and not status & 0x40)


def test_waiting_for_the_past_returns(tmp_path: Path) -> None:
    real = clock(BUILT, tmp_path / "none")
    before = real.monotonic()
    real.wait(-5.0)
    assert real.monotonic() >= before


def test_the_fake_clock_is_a_clock() -> None:
    fake = FakeClock(BUILT)
    as_clock: Clock = fake
    as_clock.wait(90)
    fake.advance(DAY)
    assert as_clock.moment(BUILT).now == BUILT + DAY + timedelta(seconds=90)
    assert fake.waits == [90]
    assert as_clock.monotonic() == 86_490
    assert as_clock.moment(BUILT + 9 * DAY).state is ClockState.UNKNOWN


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo b true", True),
        ("echo b false", False),
        ("echo b true; exit 1", False),
        ("echo true", False),
        ("exit 0", False),
    ],
)
def test_timedated_is_believed_word_for_word(script: str, says: bool) -> None:
    assert timedated_synchronised(("/bin/sh", "-c", script)) is says


def test_without_timedated_nobody_keeps_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not timedated_synchronised(("/nonexistent/busctl",))
    monkeypatch.setattr(clock_module, "_TIMEDATED_SECONDS", 0.01)
    assert not timedated_synchronised(("/bin/sh", "-c", "tail -f /dev/null"))


@pytest.mark.parametrize(
    ("kernel", "answers", "timedated", "kept"),
    [
        (True, True, False, True),
        (False, True, True, False),  # the kernel was asked, and it knows best
        (False, False, True, True),
        (False, False, False, False),
    ],
)
def test_timedated_is_asked_where_the_kernel_may_not_be(
    monkeypatch: pytest.MonkeyPatch, kernel: bool, answers: bool, timedated: bool, kept: bool
) -> None:
    monkeypatch.setattr(clock_module, "kernel_synchronised", lambda: kernel)
    monkeypatch.setattr(clock_module, "kernel_answers", lambda: answers)
    monkeypatch.setattr(clock_module, "timedated_synchronised", lambda: timedated)
    assert host_synchronised() is kept


def test_a_sandbox_that_forbids_to_ask_the_kernel_is_noticed() -> None:
    strace = need("strace", "strace")
    script = "from holdfast.host.clock import kernel_answers; print(kernel_answers())"
    for inject, answers in ((["-e", "inject=adjtimex,clock_adjtime:error=EPERM"], "False"), ([], "True")):
        command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=adjtimex,clock_adjtime", *inject]
        whole = [*command, sys.executable, "-c", script]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == answers, done.stderr
