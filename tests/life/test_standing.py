"""How often the status of a certificate is asked: bounded to both sides, whatever comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.life.standing import SHORTEST, SPREAD, next_look
from holdfast.wire.model import ClockState, Moment

T0 = datetime(2027, 1, 1, tzinfo=UTC)
NOW = Moment(T0, T0, ClockState.TRUSTED)
HOUR = timedelta(hours=1)
chance = st.binary(min_size=4, max_size=4)


@given(
    st.integers(1, 720),
    chance,
    st.none() | st.timedeltas(min_value=-99 * HOUR, max_value=9999 * HOUR),
    st.integers(0, 1000),
)
def test_never_within_the_hour_and_never_much_later_than_wanted(
    hours: int, drawn: bytes, until: timedelta | None, failed: int
) -> None:
    interval = timedelta(hours=hours)
    end = T0 + until if until is not None else None
    wait = next_look(NOW, interval, lambda _: drawn, until=end, failed=failed) - T0
    assert SHORTEST <= wait <= max(interval * (1 + SPREAD), SHORTEST)


def test_a_promise_that_ends_sooner_is_looked_at_sooner() -> None:
    middle = b"\x80\0\0\0"
    wait = next_look(NOW, 24 * HOUR, lambda _: middle, until=T0 + 4 * HOUR) - T0
    assert 3 * HOUR <= wait <= 5 * HOUR


def test_failures_are_repeated_sooner_and_then_less() -> None:
    middle = b"\x80\0\0\0"
    waits = [next_look(NOW, 24 * HOUR, lambda _: middle, failed=n) - T0 for n in range(1, 8)]
    assert waits == sorted(waits)
    assert waits[0] == 3 * HOUR
    assert waits[-1] == 24 * HOUR


def test_the_end_of_time_is_no_overflow() -> None:
    end = datetime.max.replace(tzinfo=UTC)
    moment = Moment(end, end, ClockState.TRUSTED)
    assert next_look(moment, 24 * HOUR, lambda _: b"\0\0\0\0") <= end
