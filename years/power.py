"""The mains of the simulated gateway: they can fail at any point that somebody counts."""

from __future__ import annotations


class PowerCut(BaseException):
    """The power is gone, in the middle of what the text says. No error, and nothing may catch it."""


class Fuse:
    """Counts points; at the one that it was armed for, and at every later one, the power is gone."""

    def __init__(self) -> None:
        self._left = 0
        self.burnt = False
        self.points = 0

    @property
    def armed(self) -> bool:
        return self._left > 0

    def arm(self, after: int) -> None:
        """The power fails at the point number *after* (> 0) from now."""
        self._left = after

    def disarm(self) -> None:
        self._left = 0

    def mend(self) -> None:
        """The power is back."""
        self.burnt, self._left = False, 0

    def point(self, name: str) -> None:
        """A point at which the power may fail. Raises PowerCut."""
        self.points += 1
        if self.burnt:
            raise PowerCut(name)
        if self._left:
            self._left -= 1
            if not self._left:
                self.burnt = True
                raise PowerCut(name)
