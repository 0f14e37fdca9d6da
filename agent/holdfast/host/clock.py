"""The clock of this host, and how far it can be believed (ARCHITECTURE §5 rule 7).

A gateway without a battery-backed clock starts in 1970 or at the time of its last shutdown. So the time
never stands alone: :meth:`Clock.moment` says with it whether somebody set the clock, and never gives a
time before the floor.
"""

from __future__ import annotations

import ctypes
import errno
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final, Literal, Protocol

from holdfast.wire.model import ClockState, Moment

Policy = Literal["auto", "trusted", "untrusted"]
"""``auto``: believed once it was synchronised; ``trusted``: always (a good RTC); ``untrusted``: never."""

BUILD_TIME: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that runs this release can honestly show an earlier time. Raised with each release."""

_TIMEDATED: Final = (
    "/usr/bin/busctl",
    "--system",
    "get-property",
    "org.freedesktop.timedate1",
    "/org/freedesktop/timedate1",
    "org.freedesktop.timedate1",
    "NTPSynchronized",
)
_TIMEDATED_SECONDS: Final = 5.0
_STA_UNSYNC: Final = 0x0040
_TIMESYNCD_MARKER: Final = Path("/run/systemd/timesync/synchronized")


class Clock(Protocol):
    """Time as a parameter."""

    def moment(self, floor: datetime) -> Moment:
        """Now, not before *floor* (aware), with its credibility."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never jumps."""
        ...

    def wait(self, seconds: float) -> None: ...


def believed(clock: Clock, proven: datetime, floor: datetime) -> Moment:
    """Now by *clock*, whose word counts down to *proven* where it is trusted, and else down to *floor*.

    *proven* is what others have signed; *floor* may also come from a clock that was trusted and wrong. A
    trusted clock that says less than *floor* corrects that error; one that nobody set may not (ADR 13).
    """
    moment = clock.moment(max(BUILD_TIME, proven))
    return moment if moment.trusted else clock.moment(max(proven, floor))


class _Timex(ctypes.Structure):
    """The head of ``struct timex`` (adjtimex(2)); the rest of it is room for the kernel to fill."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def host_synchronised() -> bool:
    """Whether a time daemon keeps the clock: by the kernel's word or, in a sandbox that forbids to ask it
    (``ProtectClock=``), by that of systemd-timedated, which asks for us."""
    return kernel_synchronised() or (not kernel_answers() and timedated_synchronised())


def kernel_answers() -> bool:
    """Whether this process may ask the kernel."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except AttributeError:
        return False
    return adjtimex(ctypes.byref(_Timex(modes=0))) >= 0 or ctypes.get_errno() != errno.EPERM


@cache
def timedated_synchronised(command: tuple[str, ...] = _TIMEDATED) -> bool:
    """What timedated says; False where there is none. Asked once a process: a worker lives for one step."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEDATED_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == b"b true"


def kernel_synchronised() -> bool:
    """Whether the kernel says that a time daemon keeps its clock. False where it cannot be asked."""
    timex = _Timex(modes=0)  # modes 0 only reads and needs no privilege
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except AttributeError:
        return False
    if adjtimex(ctypes.byref(timex)) < 0:
        return False
    return not int(timex.status) & _STA_UNSYNC


class SystemClock:
    """The clock of this host. *build_time* is a floor of its own; *policy* comes from the configuration."""

    def __init__(
        self,
        build_time: datetime = BUILD_TIME,
        policy: Policy = "auto",
        *,
        wall: Callable[[], float] = time.time,
        synchronised: Callable[[], bool] = host_synchronised,
        marker: Path = _TIMESYNCD_MARKER,
    ) -> None:
        self._build_time = build_time
        self._policy = policy
        self._wall = wall
        self._synchronised = synchronised
        self._marker = marker

    def moment(self, floor: datetime) -> Moment:
        """Now. Below the floor: UNKNOWN, and ``now`` is the floor."""
        lowest = max(self._build_time, floor).astimezone(UTC)
        now = datetime.fromtimestamp(self._wall(), UTC)
        if now < lowest:
            return Moment(lowest, lowest, ClockState.UNKNOWN)
        return Moment(now, lowest, ClockState.TRUSTED if self._believed() else ClockState.FLOOR_ONLY)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep; a time that has passed already is no error."""
        time.sleep(max(0.0, seconds))

    def _believed(self) -> bool:
        if self._policy == "auto":
            return self._marker.exists() or self._synchronised()
        return self._policy == "trusted"
