"""Renewal moments and backoff: bounded for every date, spread over a fleet, never sleeping a life away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.life.renewal import BACKOFF_LONGEST, SPREAD, Age, age, backoff, renewal_moment
from holdfast.wire.model import ClockState, Moment

T0 = datetime(2027, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
lives = st.timedeltas(min_value=timedelta(minutes=1), max_value=FOREVER - T0)


@given(life=lives, fraction=st.floats(0.1, 0.95), seed=st.binary(max_size=16))
def test_the_moment_lies_inside_the_life_and_near_the_fraction(
    life: timedelta, fraction: float, seed: bytes
) -> None:
    moment = renewal_moment(T0, T0 + life, fraction, seed)
    assert T0 <= moment < T0 + life
    assert abs((moment - T0) / life - fraction) <= SPREAD + 1e-6
    assert moment == renewal_moment(T0, T0 + life, fraction, seed)


def test_a_fleet_is_spread_evenly() -> None:
    year = timedelta(days=365)
    moments = sorted(renewal_moment(T0, T0 + year, 2 / 3, str(n).encode()) for n in range(2000))
    window = year * (2 * SPREAD)
    in_tenths = [0] * 10
    for moment in moments:
        place = (moment - (T0 + year * (2 / 3 - SPREAD))) / window
        in_tenths[min(9, int(place * 10))] += 1
    assert min(in_tenths) > 120
    assert max(in_tenths) < 280


def test_ages() -> None:
    end = T0 + timedelta(days=90)

    def at(days: float, state: ClockState = ClockState.TRUSTED, floor: datetime = T0) -> Age:
        return age(T0, end, 2 / 3, b"s", Moment(T0 + timedelta(days=days), floor, state))

    assert at(1) is Age.FRESH
    assert at(70) is Age.DUE
    assert at(91) is Age.LAPSED
    assert at(91, ClockState.FLOOR_ONLY) is Age.DUE
    assert at(91, ClockState.UNKNOWN, floor=T0 + timedelta(days=91)) is Age.LAPSED


def test_a_certificate_of_the_year_9999_is_simply_fresh() -> None:
    assert age(T0, FOREVER, 2 / 3, b"s", Moment(T0, T0, ClockState.TRUSTED)) is Age.FRESH


@given(
    attempts=st.integers(0, 10_000),
    random=st.binary(min_size=4, max_size=4),
    asked=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4)),
    remaining=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
)
def test_backoff_obeys_the_server_and_the_remaining_life(
    attempts: int, random: bytes, asked: timedelta | None, remaining: timedelta | None
) -> None:
    wait = backoff(attempts, lambda n: random[:n], asked=asked, remaining=remaining)
    assert wait > timedelta(0)
    assert wait <= max(BACKOFF_LONGEST, asked or timedelta(0))
    if asked is not None:
        assert wait >= asked
    elif remaining is not None:
        assert wait <= max(remaining / 10, timedelta(seconds=1))


def test_backoff_grows_and_is_drawn() -> None:
    low, high = bytes, (lambda n: b"\xff" * n)
    assert backoff(0, low) < backoff(3, low) < backoff(6, low)
    assert backoff(3, low) < backoff(3, high)
