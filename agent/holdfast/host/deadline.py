"""A moment on the monotonic clock after which an operation is over, however busy the peer looks."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.wire.errors import TransportError

Monotonic = Callable[[], float]


class Deadline:
    """*seconds* from now on *monotonic*; *what* names the operation in the error."""

    def __init__(self, seconds: float, monotonic: Monotonic, what: str) -> None:
        self._end = monotonic() + seconds
        self._monotonic = monotonic
        self._seconds = seconds
        self._what = what

    def left(self, cap: float | None = None) -> float:
        """Seconds left (> 0), at most *cap*. Raises TransportError ``transport.timeout`` when none are."""
        left = self._end - self._monotonic()
        if left <= 0:
            raise self.missed()
        return left if cap is None else min(left, cap)

    def missed(self, why: str = "") -> TransportError:
        """The error to raise when the operation was cut."""
        return TransportError(
            "transport.timeout", f"{self._what} took longer than {why or f'{self._seconds:g} s'}"
        )
