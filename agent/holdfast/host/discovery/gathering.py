"""What announcements may make us remember: so much an announcer, so many announcers, and not a byte more.

When there are more, chance decides who is kept, anew in each search: whoever shouts most cannot know that he
drove out the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced
from holdfast.wire.model import RandomBytes

MOST_ANNOUNCERS: Final = 32
MOST_OF_ONE: Final = 4


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a search: places with the source that named them, and what sources brought nothing."""

    places: tuple[tuple[Source, Announced], ...] = ()
    silent: tuple[str, ...] = ()


class Gathering:
    """The places that one source has named so far."""

    def __init__(self, random: RandomBytes) -> None:
        self._random = random
        self._kept: dict[str, dict[Announced, None]] = {}
        self._announcers = 0
        self.heard = 0

    def add(self, found: Iterable[Announced]) -> None:
        """Keep as many of *found* as may be kept."""
        for place in found:
            self.heard += 1
            of_one = self._kept.get(place.announcer)
            if of_one is None:
                of_one = self._room(place.announcer)
            if of_one is not None and len(of_one) < MOST_OF_ONE:
                of_one[place] = None

    def _room(self, announcer: str) -> dict[Announced, None] | None:
        """A place for a new *announcer*, perhaps that of an earlier one (reservoir sampling)."""
        self._announcers += 1
        if len(self._kept) >= MOST_ANNOUNCERS:
            drawn = int.from_bytes(self._random(8), "big") % self._announcers
            if drawn >= MOST_ANNOUNCERS:
                return None
            del self._kept[list(self._kept)[drawn]]
        return self._kept.setdefault(announcer, {})

    @property
    def places(self) -> tuple[Announced, ...]:
        return tuple(place for of_one in self._kept.values() for place in of_one)
