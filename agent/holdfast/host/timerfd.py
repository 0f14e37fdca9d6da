"""timerfd_create(2) for Pythons before 3.13, whose :mod:`os` has it not."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
_CLOCK_REALTIME: Final = 0


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_END_OF_TIME: Final = (1 << (8 * ctypes.sizeof(ctypes.c_long) - 2)) - 1


def create() -> int | None:
    """A timer on the wall clock, or None where the C library or the kernel has none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).timerfd_create
    except AttributeError:
        return None
    descriptor = int(function(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC))
    return descriptor if descriptor >= 0 else None


def arm(descriptor: int) -> bool:
    """Let the timer stand at the end of time and be cancelled when the clock is set; whether that was done.
    ECANCELED says that it was, and that the clock was set meanwhile."""
    settime = ctypes.CDLL(None, use_errno=True).timerfd_settime
    wanted = _Itimerspec(value=_Timespec(seconds=_END_OF_TIME))
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    done = settime(descriptor, flags, ctypes.byref(wanted), None)
    return done == 0 or ctypes.get_errno() == errno.ECANCELED
