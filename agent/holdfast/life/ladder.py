"""Which protocol an identity uses: an ordered ladder, and the rules for moving on it.

Falling back is not downgrading (ARCHITECTURE §5 rule 5). A rung is left only because its server cannot be
reached or does not have what we ask for, never because something about it could not be trusted, and never
because it said no. Every rung is checked against the same domain anchors. A new transaction always begins at
the top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from holdfast.life.record import Bar, Ladder, Move, Schedule, TransactionState
from holdfast.life.renewal import OUTAGE_AFTER, later
from holdfast.wire.errors import HoldfastError, KeyUnsuitable, RemoteProtocolError, TransportError
from holdfast.wire.model import Rejected

RECONSIDER: Final = timedelta(days=1)
"""A rung that failed under a request is passed over no longer than this."""

MOST_MOVES: Final = 8
"""How many moves the record remembers, the newest of them."""

HURRY: Final = 0.1
"""With no more than this share of the credential's life left, an unreachable server gets less patience."""

HURRIED_AFTER: Final = 2
"""Failures in a row that are enough in a hurry."""

ANSWERS: Final = "ladder.answers"
"""The reason code of a move up."""

_UNREACHABLE: Final = frozenset(
    {
        "transport.dns",
        "transport.unreachable",
        "transport.timeout",
        "transport.proxy",
        "transport.closed",
        "transport.truncated",
        "transport.broken",
    }
)


class Down(Enum):
    """What may lead down from a rung."""

    UNREACHABLE = "unreachable"
    UNSUPPORTED = "unsupported"
    BUSY = "busy"  # answers, but cannot serve: like unreachable once it lasts


@dataclass(frozen=True, slots=True)
class Pressure:
    """How pressing the matter is: failures in a row, since when, and what is left of which life.

    ``remaining`` and ``lifetime`` are None without a credential.
    """

    now: datetime
    schedule: Schedule
    remaining: timedelta | None = None
    lifetime: timedelta | None = None

    @property
    def hurry(self) -> bool:
        """Whether the credential is near its end."""
        if self.remaining is None or self.lifetime is None:
            return False
        return self.remaining <= self.lifetime * HURRY

    @property
    def lasts(self) -> bool:
        """Whether the trouble is more than a hiccup. The failure at hand is not yet in the count."""
        return self.schedule.attempts + 1 >= (HURRIED_AFTER if self.hurry else OUTAGE_AFTER)


def way_down(cause: HoldfastError | Rejected) -> Down | None:
    """Whether *cause* may lead down, and why. None for trust failures, refusals and everything of our own."""
    if isinstance(cause, Rejected):
        return Down.UNSUPPORTED if cause.unsupported else None
    if isinstance(cause, KeyUnsuitable):
        return Down.UNSUPPORTED
    if isinstance(cause, TransportError):
        return Down.UNREACHABLE if cause.code in _UNREACHABLE else None
    if isinstance(cause, RemoteProtocolError):
        if cause.unsupported:
            return Down.UNSUPPORTED
        return Down.BUSY if cause.busy else None
    return None


def candidates(rungs: tuple[str, ...], ladder: Ladder, now: datetime) -> tuple[str, ...]:
    """The rungs of a new transaction in order: from the top, without those that are barred for now; all of
    them if that leaves none."""
    barred = {bar.rung for bar in ladder.barred if bar.at <= now < later(bar.at, RECONSIDER)}
    return tuple(r for r in rungs if r not in barred) or rungs


def moves_on(down: Down | None, pressure: Pressure) -> bool:
    """Whether a transaction that has sent nothing yet tries the next rung."""
    if down is Down.BUSY:
        return pressure.lasts
    return down is not None


def forsakes(down: Down | None, state: TransactionState, pressure: Pressure) -> bool:
    """Whether a transaction that has a rung gives it up for another one.

    Freely while no request was made. One that was made may have been sent: then at once where the server has
    no such operation, else only when the trouble lasts. A server that has said "pending" surely has the
    request, and gets a day, unless the credential is near its end.
    """
    if state is TransactionState.KEYED:
        return moves_on(down, pressure)
    if state not in {TransactionState.REQUESTED, TransactionState.PENDING} or down is None:
        return False
    if down is Down.UNSUPPORTED:
        return True
    if state is TransactionState.PENDING and not pressure.hurry:
        since = pressure.schedule.since
        return pressure.lasts and since is not None and pressure.now >= later(since, RECONSIDER)
    return pressure.lasts


def arrived(ladder: Ladder, rung: str, passed: tuple[Bar, ...], now: datetime) -> Ladder:
    """After *rung* answered; *passed* are the better ones that did not, best first, with their reasons."""
    before = ladder.rung or (passed[0].rung if passed else rung)
    if before == rung:
        return replace(ladder, rung=rung)
    reason = next((p.code for p in passed if p.rung == before), ANSWERS)
    moves = (*ladder.moves, Move(before, rung, reason, now))[-MOST_MOVES:]
    return replace(ladder, rung=rung, moves=moves)


def barred(ladder: Ladder, rung: str, code: str, now: datetime) -> Ladder:
    """After a request was given up on *rung*: the next transaction passes it over."""
    others = tuple(bar for bar in ladder.barred if bar.rung != rung)
    return replace(ladder, barred=(*others, Bar(rung, code, now))[-MOST_MOVES:])


def reasons(rungs: tuple[str, ...], tried: tuple[Bar, ...], ladder: Ladder, reached: str) -> tuple[Bar, ...]:
    """Why each rung above *reached* was passed: as *tried* just now, or as it was barred before."""
    known = {bar.rung: bar for bar in (*ladder.barred, *tried)}
    above = rungs[: rungs.index(reached)]
    return tuple(known[r] for r in above if r in known)
