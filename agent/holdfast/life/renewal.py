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
OUTAGE_AFTER: Final = 7
"""From so many failures in a row on it is an outage and no hiccup: the waits until then add up to about half
an hour."""
OUTAGE_LONGEST: Final = timedelta(hours=24)
POLL_LONGEST: Final = timedelta(minutes=5)
EARLIEST: Final = 0.05
"""The share of the lifetime before which nobody's turn comes (less for a very small renewal fraction)."""
LATEST: Final = 0.98


HINT_REST: Final = timedelta(hours=1)
"""How long a new credential rests before a wish of the CA for its renewal counts."""

END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


class Age(Enum):
    """What a certificate's dates say at a moment."""

    FRESH = "fresh"
    DUE = "due"
    LAPSED = "lapsed"


def later(moment: datetime, by: timedelta) -> datetime:
    """*moment* plus *by* (>= 0), or the last moment that there is: a clock may stand at 9999."""
    return moment + by if by < END_OF_TIME - moment else END_OF_TIME


def renewal_moment(
    begin: datetime, end: datetime, fraction: float, seed: bytes, before_end: timedelta = timedelta(0)
) -> datetime:
    """The moment from which a certificate is renewed: this device's next turn.

    Time is cut into periods of *fraction* of the lifetime, and *seed* (the device's identity) alone decides
    where in each period the device has its turn. A fleet that was made in one day is so spread evenly over
    the whole period from its first renewal on, and what an outage drove together parts again. The first turn
    comes between 5 % and 5 % plus *fraction* of the life, every later one after *fraction* of it (ADR 15).

    *begin* is the beginning of the life that the device has of it: CAs backdate, and a turn between the
    date and the issue would be taken at once, again and again. No turn comes later than *before_end* ahead of
    the end, nor later than a quarter of the life if that is less: *fraction* gives way, so that the fleet
    stays spread.
    """
    lifetime = end - begin
    if lifetime > timedelta(0):
        kept = min(before_end, lifetime / 4)
        fraction = min(fraction, 1 - kept / lifetime - EARLIEST) if kept else fraction
    period = _rounded(lifetime * fraction)
    earliest = begin + lifetime * min(EARLIEST, LATEST - fraction, fraction / 4)
    draw = int.from_bytes(hashlib.sha256(b"renewal" + seed).digest()[:8], "big") / 2**64
    since_turn = (earliest - _START - period * draw) % period
    return later(earliest, period - since_turn)


def hinted_moment(start: datetime, end: datetime, begin: datetime, lapse: datetime, seed: bytes) -> datetime:
    """The moment from *start* to *end*, which the CA would like, that *seed* draws for this device.

    One that has passed means now. But a new credential, whose life is from *begin* to *lapse*, rests an hour,
    or a twentieth of a short life: a server whose every answer is "now" must not make it renew without end.
    """
    draw = int.from_bytes(hashlib.sha256(b"hint" + seed).digest()[:8], "big") / 2**64
    wanted = later(start, max(end - start, timedelta(0)) * draw)
    return max(wanted, later(begin, min(HINT_REST, max(lapse - begin, timedelta(0)) / 20)))


_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _rounded(period: timedelta) -> timedelta:
    """*period* down to seven significant bits: CAs give lifetimes that differ by seconds, which over many
    periods would else add up to another turn."""
    tick = timedelta.resolution
    count = max(period // tick, 1)
    spare = max(count.bit_length() - 7, 0)
    return (count >> spare << spare) * tick


def age(end: datetime, turn: datetime, now: Moment) -> Age:
    """Whether a certificate that ends at *end* and is renewed from *turn* on is fresh, due or lapsed.

    Without a trusted clock only the floor may say "lapsed": an unset clock must not throw an identity away.
    """
    if (now.now if now.trusted else now.floor) > end:
        return Age.LAPSED
    return Age.DUE if now.now >= turn else Age.FRESH


def backoff(
    attempts: int,
    random: RandomBytes,
    *,
    asked: timedelta | None = None,
    remaining: timedelta | None = None,
) -> timedelta:
    """How long to wait after the failure number *attempts* (0 for the first) in a row.

    Between half and all of an exponentially growing span, and never under what the server *asked* for
    (Retry-After), but up to a quarter over it: it asks everybody for the same. Only the end of the credential
    comes before that: one attempt is left in the last tenth of the life that *remains*.

    With life *remaining* there is no hurry, but a short one must not be slept away: no span is over half of
    what remains, and once the hiccups are over the span is just that, or a day. So the devices that an outage
    held up come back spread over a day, not in one hour (ADR 15).
    """
    span = min(BACKOFF_FIRST * float(1 << min(attempts, 20)), BACKOFF_LONGEST)
    if remaining is not None:
        calm = OUTAGE_LONGEST if attempts >= OUTAGE_AFTER else span
        span = min(calm, max(remaining / 2, timedelta(seconds=1)))
    draw = int.from_bytes(random(4), "big") / 2**32
    wait = span * (0.5 + draw / 2)
    if asked is None:
        return wait
    obeyed = asked * (1 + draw / 4)
    if remaining is not None:
        obeyed = min(obeyed, remaining * 0.9)
    return max(wait, obeyed)


def patience(asked: timedelta, waited: timedelta) -> timedelta:
    """How long to wait for an answer that is pending: what the server *asked* for, and for one that asked for
    seconds no less than a tenth of what was *waited* already, up to five minutes. A clock that was set may
    make *waited* negative."""
    return max(asked, min(waited / 10, POLL_LONGEST))
