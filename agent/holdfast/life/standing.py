"""When to ask whether a certificate is revoked: pure, and bounded to both sides."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from holdfast.life.renewal import later
from holdfast.wire.model import Moment, RandomBytes

SPREAD: Final = 0.25
SHORTEST: Final = timedelta(hours=1)


def next_look(
    now: Moment, interval: timedelta, random: RandomBytes, *, until: datetime | None = None, failed: int = 0
) -> datetime:
    """The time of the next look.

    After an answer: *interval*, or at the end of what the issuer promised (*until*) if that is sooner, give
    or take a quarter; never within the hour. After *failed* looks in a row without one: an eighth of it,
    doubled each time, up to *interval*. A look costs one commit, so at most one an hour.
    """
    span = interval
    if failed:
        span = min(interval, interval / 8 * float(1 << min(failed - 1, 8)))
    elif until is not None and until > now.now:
        span = min(span, until - now.now)
    draw = int.from_bytes(random(4), "big") / 2**32
    return later(now.now, max(span * (1 - SPREAD + 2 * SPREAD * draw), SHORTEST))
