"""The rules of the ladder, each with the violation that it forbids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.life.ladder import (
    ANSWERS,
    HURRIED_AFTER,
    MOST_MOVES,
    RECONSIDER,
    Down,
    Pressure,
    arrived,
    barred,
    candidates,
    forsakes,
    moves_on,
    reasons,
    way_down,
)
from holdfast.life.record import Bar, Ladder, Move, Schedule, TransactionState
from holdfast.life.renewal import OUTAGE_AFTER
from holdfast.wire.errors import (
    ConfigError,
    HoldfastError,
    KeyNotFound,
    KeyUnsuitable,
    LocalProtocolError,
    RemoteProtocolError,
    StateError,
    TransportError,
    TrustError,
)
from holdfast.wire.model import Rejected

NOW = datetime(2027, 6, 1, tzinfo=UTC)
RUNGS = ("a", "b", "c")
CALM = Pressure(NOW, Schedule(), timedelta(days=80), timedelta(days=90))
URGENT = Pressure(NOW, Schedule(), timedelta(days=5), timedelta(days=90))
OPEN = (TransactionState.REQUESTED, TransactionState.PENDING)


def failing(times: int, since: datetime = NOW, base: Pressure = CALM) -> Pressure:
    return Pressure(NOW, Schedule(attempts=times, since=since), base.remaining, base.lifetime)


# --- what leads down ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (TransportError("transport.dns"), Down.UNREACHABLE),
        (TransportError("transport.unreachable"), Down.UNREACHABLE),
        (TransportError("transport.timeout"), Down.UNREACHABLE),
        (TransportError("transport.closed"), Down.UNREACHABLE),
        (RemoteProtocolError("est.unsupported", unsupported=True), Down.UNSUPPORTED),
        (Rejected("est.unsupported", "", unsupported=True), Down.UNSUPPORTED),
        (KeyUnsuitable("scep.key"), Down.UNSUPPORTED),
        (RemoteProtocolError("est.unavailable", busy=True), Down.BUSY),
        # and what never does
        (TrustError("chain.untrusted"), None),
        (TrustError("tls.server-changed"), None),
        (TransportError("transport.tls"), None),
        (TransportError("transport.tls-alert"), None),
        (TransportError("proof.refused"), None),
        (Rejected("est.rejected", ""), None),
        (Rejected("est.unauthorized", "", estranged=True), None),
        (RemoteProtocolError("est.body-base64"), None),
        (ConfigError("config.secret"), None),
        (LocalProtocolError("est.csr"), None),
        (KeyNotFound("key.not-found"), None),
        (StateError("credentials.no-space"), None),
    ],
)
def test_only_absence_leads_down(cause: HoldfastError | Rejected, expected: Down | None) -> None:
    assert way_down(cause) is expected


# --- before anything was sent ------------------------------------------------------------------------


def test_before_anything_was_sent_it_moves_freely_but_not_for_a_busy_server() -> None:
    assert moves_on(Down.UNREACHABLE, CALM)
    assert moves_on(Down.UNSUPPORTED, CALM)
    assert not moves_on(None, failing(100))
    assert not moves_on(Down.BUSY, failing(OUTAGE_AFTER - 2))
    assert moves_on(Down.BUSY, failing(OUTAGE_AFTER - 1))
    assert moves_on(Down.BUSY, failing(HURRIED_AFTER - 1, base=URGENT))
    assert forsakes(Down.UNREACHABLE, TransactionState.KEYED, CALM)
    assert not forsakes(Down.BUSY, TransactionState.KEYED, CALM)


def test_a_transaction_begins_at_the_top() -> None:
    assert candidates(RUNGS, Ladder(rung="c"), NOW) == RUNGS


# --- after it was sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", OPEN)
def test_a_request_is_not_abandoned_lightly(state: TransactionState) -> None:
    assert not forsakes(Down.UNREACHABLE, state, CALM)
    assert not forsakes(Down.UNREACHABLE, state, failing(OUTAGE_AFTER - 2))
    assert not forsakes(None, state, failing(100, NOW - timedelta(days=300), URGENT))
    assert forsakes(Down.UNREACHABLE, state, failing(OUTAGE_AFTER - 1, NOW - RECONSIDER))
    assert forsakes(Down.UNSUPPORTED, state, CALM)
    assert forsakes(Down.UNREACHABLE, state, failing(HURRIED_AFTER - 1, base=URGENT))
    assert not forsakes(Down.UNREACHABLE, state, failing(0, base=URGENT))


def test_a_server_that_said_pending_gets_a_day() -> None:
    lately = failing(50, NOW - RECONSIDER + timedelta(seconds=1))
    assert forsakes(Down.UNREACHABLE, TransactionState.REQUESTED, lately)
    assert not forsakes(Down.UNREACHABLE, TransactionState.PENDING, lately)
    once = failing(1, NOW - RECONSIDER * 2)
    assert not forsakes(Down.UNREACHABLE, TransactionState.PENDING, once), "one hiccup after days of patience"


@pytest.mark.parametrize("state", [TransactionState.NONE, TransactionState.STAGED])
@pytest.mark.parametrize("down", [*Down, None])
def test_there_is_nothing_to_forsake_without_a_request(state: TransactionState, down: Down | None) -> None:
    assert not forsakes(down, state, failing(1000, NOW - timedelta(days=30), URGENT))


# --- where it stands ---------------------------------------------------------------------------------


def test_each_move_has_its_reason() -> None:
    down = arrived(Ladder(), "b", (Bar("a", "transport.dns", NOW),), NOW)
    assert down == Ladder("b", (Move("a", "b", "transport.dns", NOW),))
    assert arrived(down, "b", (Bar("a", "transport.timeout", NOW),), NOW) == down
    further = arrived(down, "c", (Bar("a", "x", NOW), Bar("b", "y", NOW)), NOW)
    assert further.moves[-1] == Move("b", "c", "y", NOW)
    up = arrived(further, "a", (), NOW)
    assert (up.rung, up.moves[-1]) == ("a", Move("c", "a", ANSWERS, NOW))
    assert arrived(Ladder(), "a", (), NOW) == Ladder("a")


def test_a_barred_rung_is_passed_over_for_a_day_at_most() -> None:
    ladder = barred(Ladder(), "a", "est.unsupported", NOW)
    assert candidates(RUNGS, ladder, NOW) == ("b", "c")
    assert candidates(RUNGS, ladder, NOW + RECONSIDER) == RUNGS
    assert candidates(RUNGS, ladder, NOW - timedelta(days=1)) == RUNGS, "barred under a wrong clock"
    assert reasons(RUNGS, (Bar("b", "transport.dns", NOW),), ladder, "c") == (
        Bar("a", "est.unsupported", NOW),
        Bar("b", "transport.dns", NOW),
    )


def test_when_all_are_barred_none_is() -> None:
    ladder = Ladder()
    for rung in RUNGS:
        ladder = barred(ladder, rung, "x", NOW)
    assert candidates(RUNGS, ladder, NOW) == RUNGS


@given(
    visits=st.lists(st.tuples(st.sampled_from(RUNGS), st.booleans()), max_size=40),
    skew=st.timedeltas(-timedelta(days=9000), timedelta(days=9000)),
)
def test_the_moves_stay_few_and_join_up(visits: list[tuple[str, bool]], skew: timedelta) -> None:
    ladder = Ladder()
    for rung, bar in visits:
        at = NOW + skew
        assert candidates(RUNGS, ladder, at)
        passed = tuple(Bar(r, "x", at) for r in RUNGS[: RUNGS.index(rung)])
        ladder = arrived(ladder, rung, passed, at)
        if bar:
            ladder = barred(ladder, rung, "y", at)
        assert ladder.rung == rung
    assert len(ladder.moves) <= MOST_MOVES
    assert len(ladder.barred) <= len(RUNGS)
    assert all(a.target == b.source for a, b in zip(ladder.moves, ladder.moves[1:], strict=False))
    assert all(m.source != m.target for m in ladder.moves)
