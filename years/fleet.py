"""A fleet in virtual time: when a million devices renew, and when they come back after an outage of the CA.

Every moment comes from the agent's own functions (:func:`~holdfast.life.renewal.renewal_moment` and
:func:`~holdfast.worker.setbacks.next_attempt`), called once for each device and renewal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.host.config_model import RenewSettings
from holdfast.life.record import Schedule
from holdfast.life.renewal import EARLIEST, renewal_moment
from holdfast.wire.errors import TransportError
from holdfast.wire.model import ClockState, Moment
from holdfast.worker.setbacks import next_attempt

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
BEGIN: Final = datetime(2027, 6, 1, tzinfo=UTC)
FRACTION: Final = RenewSettings().fraction
EXCHANGE: Final = timedelta(seconds=5)
"""From the request to the new certificate in use."""

OUTAGE: Final = DAY
RECOVERY: Final = 2 * DAY
STEADY_GOAL: Final = 1.2
RECOVERY_GOAL: Final = 3.0
UNREACHABLE: Final = TransportError("transport.unreachable", "the CA is down")


@dataclass(frozen=True, slots=True)
class Fleet:
    """*devices* get their first certificates, which live for ``life``, at random moments of one day. Requests
    in quiet are counted in bins of ``bin``: an hour, or more where an hour would hold so few requests that
    chance alone made peaks."""

    name: str
    life: timedelta
    bin: timedelta
    devices: int = 1_000_000

    @property
    def period(self) -> timedelta:
        """From one renewal to the next, as the agent has it."""
        first = renewal_moment(BEGIN, BEGIN + self.life, FRACTION, b"")
        return renewal_moment(first, first + self.life, FRACTION, b"") - first

    def per_bin(self, width: timedelta) -> float:
        """The mean number of requests in quiet."""
        return self.devices / (self.period / width)


FLEETS: Final = (
    Fleet("7 days", timedelta(days=7), HOUR),
    Fleet("90 days", timedelta(days=90), HOUR),
    Fleet("1 year", timedelta(days=365), 6 * HOUR),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What the CA saw, as multiples of the mean load in quiet, one value a bin.

    ``quiet``: the first period, from the moment on when the turn of every device may come. ``failed`` and
    ``after``: attempts during the outage that then begins, and requests in the two days from its end, by the
    hour. ``healed``: the period after those. ``late`` counts devices that came back after the end of their
    certificate. ``chance`` is the peak in quiet that is to be expected of requests at purely random moments.
    """

    fleet: Fleet
    quiet: tuple[float, ...]
    failed: tuple[float, ...]
    after: tuple[float, ...]
    healed: tuple[float, ...]
    late: int
    chance: float

    @property
    def steady_peak(self) -> float:
        """Peak to mean in quiet, before the outage and after it."""
        return max(*self.quiet, *self.healed)

    @property
    def recovery_peak(self) -> float:
        """The peak after the outage against the mean in quiet (not against the higher mean after it)."""
        return max(self.after)


class _Bins:
    """Counts moments from *begin* on in whole bins; others are not asked about."""

    def __init__(self, begin: datetime, lasts: timedelta, width: timedelta) -> None:
        self._begin, self._width = begin, width
        self._counts = [0] * (lasts // width)

    def add(self, moment: datetime) -> None:
        place = (moment - self._begin) // self._width
        if 0 <= place < len(self._counts):
            self._counts[place] += 1

    def relative(self, mean: float) -> tuple[float, ...]:
        return tuple(round(count / mean, 3) for count in self._counts)


def observe(fleet: Fleet, seed: int = 1) -> Load:
    """Live with *fleet* from its provisioning to the period after an outage of one day."""
    chance, period, seed_of = Random(f"{fleet.name} {seed}"), fleet.period, _seeds()
    start = BEGIN + DAY + fleet.life * EARLIEST
    outage = (start + period, start + period + OUTAGE)
    end = outage[1] + RECOVERY + period
    quiet, healed = _Bins(start, period, fleet.bin), _Bins(end - period, period, fleet.bin)
    failed, after = _Bins(outage[0], OUTAGE, HOUR), _Bins(outage[1], RECOVERY, HOUR)
    late = 0
    for number in range(fleet.devices):
        issued = BEGIN + DAY * chance.random()
        who = seed_of(number)
        while (moment := renewal_moment(issued, issued + fleet.life, FRACTION, who)) < end:
            attempts = 0
            while outage[0] <= moment < outage[1]:
                failed.add(moment)
                moment = _again(attempts, moment, issued + fleet.life, chance)
                attempts += 1
            late += moment > issued + fleet.life
            for bins in (quiet, after, healed):
                bins.add(moment)
            issued = moment + EXCHANGE
    mean, hourly = fleet.per_bin(fleet.bin), fleet.per_bin(HOUR)
    return Load(
        fleet,
        quiet.relative(mean),
        failed.relative(hourly),
        after.relative(hourly),
        healed.relative(mean),
        late,
        round(1 + math.sqrt(2 * math.log(period / fleet.bin) / mean), 3),
    )


def _again(attempts: int, now: datetime, end: datetime, chance: Random) -> datetime:
    """When a device whose certificate ends at *end* tries again, by its own rule."""
    return next_attempt(
        Schedule(attempts=attempts),
        UNREACHABLE,
        Moment(now, now, ClockState.TRUSTED),
        chance.randbytes,
        remaining=end - now if now < end else None,
    )


def _seeds() -> Callable[[int], bytes]:
    """What the agent's ``agenda.seed_of`` gives for the device of that number: its subject and the name of
    its identity. The subject is encoded once, and the digits are put into it."""
    serial = x509.NameAttribute(NameOID.SERIAL_NUMBER, "HF-0000000")
    before, after = x509.Name([serial]).public_bytes().split(b"0000000")
    return lambda number: before + b"%07d" % number + after + b"ldevid"
