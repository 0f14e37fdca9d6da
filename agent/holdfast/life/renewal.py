"""When to renew and when to try again: pure functions of dates, a seed and chance handed in.

Dates may be 9999-12-31, lives may be minutes: all arithmetic is on differences, and is bounded.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from holdfast.wire.model import Moment, RandomBytes

BACKOFF_FIRST: Final = timedelta(seconds=15)
BACKOFF_LONGEST: Final = timedelta(hours=6)
SPREAD: Final = 0.05  # of the lifetime, to both sides of the renewal fraction


END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


class Age(Enum):
    """What a certificate's dates say at a moment."""

    FRESH = "fresh"
    DUE = "due"
    LAPSED = "lapsed"


def later(moment: datetime, by: timedelta) -> datetime:
    """*moment* plus *by* (>= 0), or the last moment that there is: a clock may stand at 9999."""
    return moment + by if by < END_OF_TIME - moment else END_OF_TIME


def renewal_moment(not_before: datetime, not_after: datetime, fraction: float, seed: bytes) -> datetime:
    """The moment from which a certificate is renewed.

    *fraction* of the lifetime, moved by up to 5 % to either side. The move depends on *seed* alone (the
    device's identity), so that devices that were made in one batch do not renew in one hour, and one
    device does not change its mind.
    """
    lifetime = not_after - not_before
    draw = int.from_bytes(hashlib.sha256(b"renewal" + seed).digest()[:8], "big") / 2**64
    share = min(max(fraction + (2 * draw - 1) * SPREAD, 0.0), 0.98)
    return not_before + lifetime * share


def age(not_before: datetime, not_after: datetime, fraction: float, seed: bytes, now: Moment) -> Age:
    """Whether the certificate is fresh, due or lapsed.

    Without a trusted clock only the floor may say "lapsed": an unset clock must not throw an identity away.
    """
    end_known = now.now if now.trusted else now.floor
    if end_known > not_after:
        return Age.LAPSED
    if now.now >= renewal_moment(not_before, not_after, fraction, seed):
        return Age.DUE
    return Age.FRESH


def backoff(
    attempts: int,
    random: RandomBytes,
    *,
    asked: timedelta | None = None,
    remaining: timedelta | None = None,
) -> timedelta:
    """How long to wait after the failure number *attempts* (0 for the first) in a row.

    Between half and all of an exponentially growing span, never under what the server *asked* for
    (Retry-After), and never over a tenth of the life that the credential has *remaining* unless the
    server asked for more: a short certificate must not be slept away.
    """
    span = min(BACKOFF_FIRST * float(1 << min(attempts, 20)), BACKOFF_LONGEST)
    draw = int.from_bytes(random(4), "big") / 2**32
    wait = span * (0.5 + draw / 2)
    if remaining is not None:
        wait = min(wait, max(remaining / 10, timedelta(seconds=1)))
    return max(wait, asked) if asked is not None else wait
