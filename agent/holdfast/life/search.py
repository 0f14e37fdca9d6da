"""Whom to ask whose device this is, if nobody told: what a search found, in which order it is tried, and what
became of it (pure).

Announcements are anybody's. So the order never depends on who was first: it is the configuration's,
announcers take turns so that one of them cannot crowd the others out, and a place whose voucher failed comes
last for a day. Nobody is struck off for good: a registrar may have been mended, and asking it costs no more
than a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from holdfast.wire.discovery.announced import Announced, Role

MOST_CANDIDATES: Final = 16
"""Tried in one search. With five seconds for a dead one, that is little more than a minute."""

MOST_REFUSALS: Final = 32
DISTRUST: Final = timedelta(days=1)

REST: Final = timedelta(minutes=10)
"""Between two searches for a registrar that is out of reach."""

STRANGER_REST: Final = timedelta(days=1)
"""Somebody else at its place is reason for one search. If that brought nothing, the domain is gone."""


class Source(Enum):
    """From where a candidate is known; the configuration spells them so."""

    LIST = "list"
    DHCP = "dhcp"
    DNS_SD = "dns-sd"
    MDNS = "mdns"
    GRASP = "grasp"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place to ask: ``host:port``, what it claims to be, and who says so."""

    endpoint: str
    role: Role
    source: Source
    announcer: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a place did not become our owner's: the code, the text, when. ``distrusted``: it failed as one
    that lies would, not as one that is out of reach."""

    endpoint: str
    code: str
    detail: str
    at: datetime
    distrusted: bool


@dataclass(frozen=True, slots=True)
class Search:
    """``waiting`` are the candidates still to be tried, best first, ``trying`` is the one that is. ``good``
    is the place whose voucher held last, and ``silent`` says which sources brought nothing, and why."""

    waiting: tuple[Candidate, ...] = ()
    trying: Candidate | None = None
    refusals: tuple[Refusal, ...] = ()
    good: Candidate | None = None
    silent: tuple[str, ...] = ()
    at: datetime | None = None

    def refusal_of(self, endpoint: str) -> Refusal | None:
        """Why *endpoint* was refused last, if it was."""
        return next((r for r in self.refusals if r.endpoint == endpoint), None)


NO_SEARCH: Final = Search()
"""Nobody was ever sought."""


def ranked(
    found: Iterable[tuple[Source, Announced]], order: Sequence[Source], search: Search, now: datetime
) -> tuple[Candidate, ...]:
    """The candidates to try, best first: the one that was good before, then by source as *order* has it, a
    proxy before a registrar (RFC 8995 §4.1), then by the announcers' own priorities. Those that are
    distrusted come after all others."""
    keyed: list[tuple[tuple[bool, int, int, bool, int], Candidate]] = []
    turns: dict[tuple[Source, str], int] = {}
    seen: set[str] = set()
    for source, place in sorted(found, key=lambda f: f[1].priority):
        if source not in order or place.endpoint in seen:
            continue
        seen.add(place.endpoint)
        turn = turns[source, place.announcer] = turns.get((source, place.announcer), -1) + 1
        # The list has one announcer, who wrote it in his own order.
        key = (
            _distrusted(search, place.endpoint, now),
            order.index(source),
            turn,
            place.role is not Role.PROXY,
            place.priority,
        )
        keyed.append((key, Candidate(place.endpoint, place.role, source, place.announcer)))
    keyed.sort(key=lambda each: each[0])
    candidates = [candidate for _, candidate in keyed]
    good = search.good
    if good is not None and not _distrusted(search, good.endpoint, now):
        candidates = [good, *(c for c in candidates if c.endpoint != good.endpoint)]
    return tuple(candidates[:MOST_CANDIDATES])


def _distrusted(search: Search, endpoint: str, now: datetime) -> bool:
    refusal = search.refusal_of(endpoint)
    return refusal is not None and refusal.distrusted and abs(now - refusal.at) < DISTRUST


def next_up(search: Search) -> Candidate | None:
    """The candidate that is tried now: the one under way, else the first that waits."""
    return search.trying or next(iter(search.waiting), None)


def took(search: Search) -> Search:
    """The first that waits is the one that is tried."""
    if search.trying is not None or not search.waiting:
        return search
    return replace(search, trying=search.waiting[0], waiting=search.waiting[1:])


def refused(search: Search, refusal: Refusal) -> Search:
    """The one that was tried is not our owner's, at least not now."""
    others = tuple(r for r in search.refusals if r.endpoint != refusal.endpoint)
    return replace(search, trying=None, refusals=(refusal, *others)[:MOST_REFUSALS])


def proved(search: Search) -> Search:
    """The voucher of the one that was tried held: remember it, and look no further."""
    if search.trying is None:
        return search
    kept = tuple(r for r in search.refusals if r.endpoint != search.trying.endpoint)
    return Search(good=search.trying, refusals=kept, at=search.at)
