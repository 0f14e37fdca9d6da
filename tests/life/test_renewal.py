"""Renewal moments and backoff: bounded for every date, spread over a fleet, never sleeping a life away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.life.renewal import (
    BACKOFF_LONGEST,
    EARLIEST,
    HINT_REST,
    LATEST,
    OUTAGE_AFTER,
    OUTAGE_LONGEST,
    Age,
    _rounded,
    age,
    backoff,
    hinted_moment,
    patience,
    renewal_moment,
)
from holdfast.wire.model import ClockState, Moment

T0 = datetime(2027, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
lives = st.timedeltas(min_value=timedelta(minutes=1), max_value=FOREVER - T0)


fractions = st.floats(0.05, 0.95)


@given(life=lives, fraction=fractions, seed=st.binary(max_size=16))
def test_the_moment_lies_inside_the_life_and_near_the_fraction(
    life: timedelta, fraction: float, seed: bytes
) -> None:
    moment = renewal_moment(T0, T0 + life, fraction, seed)
    assert T0 + life * 0.01 < moment < T0 + life
    assert (moment - T0) / life <= min(fraction + EARLIEST, LATEST) + 1e-6
    assert moment == renewal_moment(T0, T0 + life, fraction, seed)


@given(life=lives, fraction=fractions, seed=st.binary(max_size=16), late=st.floats(0, 0.9))
def test_a_device_keeps_its_turn(life: timedelta, fraction: float, seed: bytes, late: float) -> None:
    """Each renewal comes one period after the one before, also after one that was late."""
    life = min(life, timedelta(days=365))
    period = _rounded(life * fraction)
    first = renewal_moment(T0, T0 + life, fraction, seed)
    second = renewal_moment(first, first + life, fraction, seed)
    assert second - first == period
    done = first + min(period - life * EARLIEST - timedelta.resolution, period * late)
    if first <= done:
        assert renewal_moment(done, done + life, fraction, seed) == second


@given(life=lives, fraction=fractions)
def test_a_rounded_period_is_hardly_shorter(life: timedelta, fraction: float) -> None:
    period = life * fraction
    assert period * (63 / 64) - timedelta.resolution <= _rounded(period) <= period


def test_a_life_of_no_length_has_a_moment() -> None:
    assert renewal_moment(T0, T0, 0.5, b"") >= T0


def test_lifetimes_that_differ_by_seconds_keep_the_turn() -> None:
    """7 days, about 1,400 periods after the count began: a second more would be 24 minutes."""
    begin = T0 + timedelta(days=10)
    moments = {
        renewal_moment(begin, begin + timedelta(days=7, seconds=s), 2 / 3, b"device") for s in range(60)
    }
    assert max(moments) - min(moments) < timedelta(minutes=1)


def test_a_fleet_is_spread_evenly_over_the_whole_period() -> None:
    year = timedelta(days=365)
    moments = sorted(renewal_moment(T0, T0 + year, 2 / 3, str(n).encode()) for n in range(2000))
    in_tenths = [0] * 10
    for moment in moments:
        place = (moment - (T0 + year * EARLIEST)) / _rounded(year * (2 / 3))
        in_tenths[min(9, int(place * 10))] += 1
    assert min(in_tenths) > 150
    assert max(in_tenths) < 250


def test_ages() -> None:
    end = T0 + timedelta(days=90)

    def at(days: float, state: ClockState = ClockState.TRUSTED, floor: datetime = T0) -> Age:
        return age(end, T0 + timedelta(days=60), Moment(T0 + timedelta(days=days), floor, state))

    assert at(1) is Age.FRESH
    assert at(70) is Age.DUE
    assert at(91) is Age.LAPSED
    assert at(91, ClockState.FLOOR_ONLY) is Age.DUE
    assert at(91, ClockState.UNKNOWN, floor=T0 + timedelta(days=91)) is Age.LAPSED


def test_a_certificate_of_the_year_9999_is_simply_fresh() -> None:
    turn = renewal_moment(T0, FOREVER, 2 / 3, b"s")
    assert age(FOREVER, turn, Moment(T0, T0, ClockState.TRUSTED)) is Age.FRESH


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
    longest = BACKOFF_LONGEST if remaining is None else OUTAGE_LONGEST
    assert wait <= max(longest, (asked or timedelta(0)) * 1.25)
    if asked is not None:
        assert wait >= (asked if remaining is None else min(asked, remaining * 0.9))
        assert remaining is None or wait <= max(remaining * 0.9, timedelta(seconds=1))
    elif remaining is not None:
        assert wait <= max(remaining / 2, timedelta(seconds=1))


def test_a_fleet_that_was_asked_for_the_same_patience_does_not_come_back_in_one_second() -> None:
    hour = timedelta(hours=1)
    waits = [backoff(0, lambda _, n=n: bytes([n, 0, 0, 0]), asked=hour) for n in range(256)]
    assert min(waits) >= hour
    assert max(waits) - min(waits) > timedelta(minutes=14)


@given(
    life=lives,
    fraction=fractions,
    seed=st.binary(max_size=16),
    before_end=st.timedeltas(timedelta(0), timedelta(days=4000)),
)
def test_no_turn_comes_after_the_floor(
    life: timedelta, fraction: float, seed: bytes, before_end: timedelta
) -> None:
    moment = renewal_moment(T0, T0 + life, fraction, seed, before_end)
    assert T0 < moment <= T0 + life - min(before_end, life / 4) + life * 1e-6
    now = Moment(moment, moment, ClockState.TRUSTED)
    assert age(T0 + life, moment, now) is Age.DUE


def test_a_floor_leaves_the_fleet_spread_and_the_usual_fraction_alone() -> None:
    life, week = timedelta(days=90), timedelta(days=7)
    held = {renewal_moment(T0, T0 + life, 0.95, str(n).encode(), week) for n in range(100)}
    assert max(held) - min(held) > life * 0.5
    for n in range(20):
        seed = str(n).encode()
        assert renewal_moment(T0, T0 + life, 0.667, seed, week) == renewal_moment(T0, T0 + life, 0.667, seed)


def test_backoff_grows_and_is_drawn() -> None:
    low, high = bytes, (lambda n: b"\xff" * n)
    assert backoff(0, low) < backoff(3, low) < backoff(6, low)
    assert backoff(3, low) < backoff(3, high)


spans = st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400))


@given(asked=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4)), waited=spans)
def test_patience_is_what_was_asked_or_grows_to_a_bound(asked: timedelta, waited: timedelta) -> None:
    wait = patience(asked, waited)
    assert asked <= wait <= max(asked, timedelta(minutes=5))
    if waited > timedelta(hours=1):
        assert wait >= timedelta(minutes=5)


def test_the_hiccups_are_over_within_the_hour() -> None:
    year = timedelta(days=365)
    waits = [backoff(n, lambda n: b"\xff" * n, remaining=year) for n in range(OUTAGE_AFTER + 1)]
    assert sum(waits[:-1], timedelta(0)) < timedelta(hours=1)
    assert waits[-1] > timedelta(hours=23)


def test_attempts_are_denser_as_the_end_nears() -> None:
    left, waits = timedelta(days=2), []
    while left > timedelta(minutes=1):
        waits.append(backoff(50, lambda n: b"\x80" * n, remaining=left))
        left -= waits[-1]
    assert waits == sorted(waits, reverse=True)
    assert len(waits) > 15


# --- the CA's wish -------------------------------------------------------------------------------------

moments = st.datetimes(timezones=st.just(UTC))


@given(start=moments, end=moments, life=lives, seed=st.binary(max_size=8))
def test_a_wish_is_kept_inside_its_window_and_a_new_credential_rests_first(
    start: datetime, end: datetime, life: timedelta, seed: bytes
) -> None:
    moment = hinted_moment(start, end, T0, T0 + life, seed)
    rest = T0 + min(HINT_REST, life / 20)
    assert moment >= rest
    assert moment == rest or start <= moment <= max(start, end)
    assert moment == hinted_moment(start, end, T0, T0 + life, seed)


def test_a_fleet_is_spread_over_the_window() -> None:
    start, end = T0 + timedelta(days=10), T0 + timedelta(days=12)
    held = sorted(hinted_moment(start, end, T0, T0 + timedelta(days=90), str(n).encode()) for n in range(500))
    assert held[0] < start + timedelta(hours=2)
    assert held[-1] > end - timedelta(hours=2)


def test_a_window_that_has_passed_means_now() -> None:
    past = T0 - timedelta(days=400)
    moment = hinted_moment(past, past, T0, T0 + timedelta(days=90), b"s")
    assert moment == T0 + HINT_REST
