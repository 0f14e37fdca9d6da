"""From an error to what the record keeps of it, and to the next attempt's time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from holdfast.life.record import Schedule, Trouble
from holdfast.life.renewal import BACKOFF_LONGEST, backoff, later
from holdfast.wire.errors import HoldfastError, KeyNotFound, RemoteProtocolError, Retry, TrustError
from holdfast.wire.model import Moment, RandomBytes, Rejected


def trouble(cause: HoldfastError | Rejected, now: Moment) -> Trouble:
    """What ``holdfast status`` will say about *cause*."""
    if isinstance(cause, Rejected):
        return Trouble(cause.code, cause.detail, "", Retry.BACKOFF.value, now.now)
    return Trouble(cause.code, cause.detail, cause.clause, cause.retry.value, now.now)


def lies(cause: HoldfastError | Rejected) -> bool:
    """Whether *cause* says that a registrar is not what it claims to be, rather than out of reach or busy."""
    return isinstance(cause, TrustError) or (
        isinstance(cause, RemoteProtocolError)
        and not (cause.busy or cause.unsupported or cause.code.startswith("network."))
    )


def key_is_gone(error: HoldfastError) -> bool:
    """Whether *error* says that a key will never be usable again: no wait and no retry brings it back."""
    return isinstance(error, KeyNotFound) or error.code in _GONE


_GONE: Final = frozenset({"key.parent-changed", "key.corrupt"})


def is_of_time(error: HoldfastError) -> bool:
    """Whether *error* may be nothing but a wrong clock, ours or theirs."""
    return isinstance(error, TrustError) and error.code in _OF_TIME


_OF_TIME: Final = frozenset({"chain.expired", "chain.not-yet-valid"})

PATIENCE_WITH_TIME: Final = 12
"""So many failures in a row that may come of a wrong clock cost nothing; with the waits between them that is
about half a day. After that the domain may really have moved on: a spare part that lay in a store for years
holds anchors that have ended (ADR 13)."""

EARLY_ATTEMPTS: Final = 8
"""How often a certificate may come that is not valid yet before its request and key are given up: about half
an hour, in which the network brings the time."""


def next_attempt(
    schedule: Schedule,
    cause: HoldfastError | Rejected,
    now: Moment,
    random: RandomBytes,
    *,
    remaining: timedelta | None = None,
) -> datetime:
    """When to try again, not before the server wants it. An error for the operator waits longest: trying a
    PIN again could lock the key."""
    if isinstance(cause, HoldfastError) and cause.retry is Retry.OPERATOR:
        return later(now.now, BACKOFF_LONGEST)
    asked = cause.retry_after if isinstance(cause, RemoteProtocolError) else None
    return later(now.now, backoff(schedule.attempts, random, asked=asked, remaining=remaining))
