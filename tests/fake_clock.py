"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta

from holdfast.wire.model import ClockState, Moment


class FakeClock:
    """Implements ``holdfast.host.clock.Clock``. Waiting advances it at once.

    ``waits`` keeps the seconds that were asked for.
    """

    def __init__(self, now: datetime, state: ClockState = ClockState.TRUSTED) -> None:
        self.now = now
        self.state = state
        self.waits: list[float] = []
        self._elapsed = 0.0

    def moment(self, floor: datetime) -> Moment:
        if self.now < floor:
            return Moment(floor, floor, ClockState.UNKNOWN)
        return Moment(self.now, floor, self.state)

    def monotonic(self) -> float:
        return self._elapsed

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.advance(timedelta(seconds=max(0.0, seconds)))

    def advance(self, by: timedelta) -> None:
        self.now += by
        self._elapsed += by.total_seconds()
