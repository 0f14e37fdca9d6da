"""Tell that somebody set the host's clock, so that due times can be computed anew (timerfd_create(2)).

A wait of so many seconds was a difference to a date. When NTP arrives late, a person sets the clock or a leap
second is inserted, that difference is wrong; a renewal may be due at once, or not for long. The kernel tells
by cancelling a timer that stands at the end of time. Standard library only: the resident process uses this.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

TOLERANCE: Final = 2.0
"""Without timerfd: a change of more seconds between the wall and the running clock is a setting of it."""

_END_OF_TIME: Final = (1 << 63) - 1
"""In nanoseconds: the year 2262."""


class ClockWatch:
    """Watches the clock until it is closed. Use it in a ``with`` block.

    ``descriptor`` becomes readable when the clock is set: give it to ``select`` and ask :meth:`was_set` then.
    It is None on a host without timerfd; then :meth:`was_set` compares clocks, so ask it now and then.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, running: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._running = running
        self._offset = wall() - running()
        self.descriptor = _open_timer()
        if self.descriptor is not None:
            self._arm(self.descriptor)

    def was_set(self) -> bool:
        """Whether the clock was set since this was asked last. Never blocks, and tells each time once."""
        if self.descriptor is None:
            return self._moved()
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        # Cancelled; or the end of time was reached, which only a clock that was set there can do.
        self._arm(self.descriptor)
        return True

    def close(self) -> None:
        """Stop watching; closing twice is no error."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _moved(self) -> bool:
        before, self._offset = self._offset, self._wall() - self._running()
        return abs(self._offset - before) > TOLERANCE

    def _arm(self, descriptor: int) -> None:
        """A timer that never expires. A host that does not know how to cancel it has none for us."""
        if not _set_timer(descriptor):
            self.close()


def _open_timer() -> int | None:
    """A timer on the wall clock, or None where the C library or the kernel has none."""
    if sys.version_info >= (3, 13):
        try:
            return os.timerfd_create(time.CLOCK_REALTIME, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        except OSError:
            return None
    from holdfast.host import timerfd  # noqa: PLC0415 - ctypes, which is heavy, only where it is needed

    return timerfd.create()


def _set_timer(descriptor: int) -> bool:
    """Whether the timer is armed. ECANCELED says that it is, and that the clock was set meanwhile: the caller
    tells of that setting already, or watches only from now on."""
    if sys.version_info >= (3, 13):
        flags = os.TFD_TIMER_ABSTIME | os.TFD_TIMER_CANCEL_ON_SET
        try:
            os.timerfd_settime_ns(descriptor, flags=flags, initial=_END_OF_TIME)
        except OSError as error:
            return error.errno == errno.ECANCELED
        return True
    from holdfast.host import timerfd  # noqa: PLC0415 - see above

    return timerfd.arm(descriptor)
