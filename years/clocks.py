"""True time, and what the gateway's clock makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PosixPath
from typing import Final

from holdfast.host.clock import SystemClock

from .power import Fuse

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SMALL: Final = timedelta(minutes=1)


class Time:
    """The truth, which only moves forward."""

    def __init__(self, now: datetime) -> None:
        self.began = now
        self.now = now

    def reach(self, moment: datetime) -> None:
        self.now = max(self.now, moment)


class _NoFile(PosixPath):
    """Where systemd-timesyncd would leave its mark; it does not run here, and the real disk is not asked."""

    def exists(self, **_: bool) -> bool:
        return False


class HostClock(SystemClock):
    """The agent's real clock code over a wall clock that may be wrong by ``error``."""

    def __init__(self, time: Time, fuse: Fuse) -> None:
        self._time = time
        super().__init__(
            wall=self._wall_time, synchronised=lambda: self.synchronised, marker=_NoFile("/nowhere")
        )
        self._fuse = fuse
        self.error = timedelta(0)
        self.synchronised = True

    def _wall_time(self) -> float:
        return (self._time.now + self.error).timestamp()

    @property
    def right(self) -> bool:
        return abs(self.error) < SMALL

    def monotonic(self) -> float:
        return (self._time.now - self._time.began).total_seconds()

    def wait(self, seconds: float) -> None:
        self._fuse.point("wait")
        self._time.reach(self._time.now + timedelta(seconds=max(0.0, seconds)))

    def start_without_battery(self) -> None:
        """The time at boot is 1970."""
        self.set_wrong(EPOCH - self._time.now)

    def set_wrong(self, error: timedelta) -> None:
        """Nobody vouches for a clock that is wrong by *error*."""
        self.error, self.synchronised = error, False

    def set_falsely(self, error: timedelta) -> None:
        """A time server that lies was believed."""
        self.error, self.synchronised = error, True

    def set_right(self) -> None:
        """A time server was reached."""
        self.error, self.synchronised = timedelta(0), True
