"""EST at one server, then at a second one: what moves a device, what does not, and how it comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.host.store import StateStore
from holdfast.life.ladder import ANSWERS, RECONSIDER
from holdfast.life.record import CredentialState, DeviceRecord, DomainState, Move, TransactionState
from holdfast.worker.step import Step, StepReport
from lifecycle.town import A, B, C, Town


def step_when_due(town: Town, times: int = 1) -> StepReport:
    for _ in range(times):
        due = town.identity.schedule.due
        if due is not None:
            town.clock.now = max(town.clock.now, due)
        report = town.step()
    return report


def moves(town: Town) -> list[tuple[str, str, str]]:
    return [(m.source, m.target, m.code) for m in town.identity.ladder.moves]


# --- down --------------------------------------------------------------------------------------------


def test_an_unreachable_server_is_passed_in_the_same_step(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.down = {"a.example"}
    town.step()
    assert town.active
    assert moves(town) == [("est", "est-2", "transport.unreachable")]
    assert town.identity.ladder.rung == "est-2"
    assert town.identity.schedule.trouble is None
    assert town.identity.ladder.moves[0].at == town.clock.now


@pytest.mark.parametrize("fault", ["cacerts:status:0:code=404", "cacerts:status:0:code=501"])
def test_a_server_without_est_is_passed(tmp_path: Path, fault: str) -> None:
    town = Town(tmp_path, faults={"a.example": [fault]})
    town.step()
    assert town.active
    assert moves(town) == [("est", "est-2", "est.unsupported")]


@pytest.mark.parametrize(
    "fault", ["cacerts:drop-before", "cacerts:truncated", "cacerts:slow:0:seconds=600", "cacerts:drop-after"]
)
def test_a_server_that_does_not_answer_is_passed(tmp_path: Path, fault: str) -> None:
    town = Town(tmp_path, faults={"a.example": [fault]})
    town.step()
    assert town.active
    assert town.identity.ladder.rung == "est-2"


def test_an_operation_that_is_refused_as_unsupported_moves_with_a_new_key(tmp_path: Path) -> None:
    town = Town(tmp_path, faults={"a.example": ["simpleenroll:status:0:code=404"]})
    town.step()
    assert town.active
    assert town.enrollments() == ["a.example", "b.example"]
    assert moves(town) == [("est", "est-2", "est.unsupported")]
    assert town.keys.made == 2
    assert town.keys.refs() == {town.identity.credential.key}
    assert town.identity.ladder.barred == (), "a credential that works opens every rung again"


def test_with_no_rung_left_it_waits_and_makes_no_keys_in_circles(tmp_path: Path) -> None:
    everywhere = ["simpleenroll:status:0:code=404"]
    town = Town(tmp_path, faults={"a.example": everywhere, "b.example": everywhere})
    report = town.step()
    assert report.due > town.clock.now
    assert town.keys.made == 2
    assert town.identity.schedule.trouble is not None
    assert town.identity.schedule.trouble.code == "est.unsupported"
    town.rebuild({"b.example": everywhere})
    town.live_until_active(steps=60)
    assert town.identity.ladder.rung == "est"


def test_all_unreachable_is_told_of_the_best_and_tried_again(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.down = {"a.example", "b.example"}
    report = town.step()
    trouble = town.identity.schedule.trouble
    assert trouble is not None
    assert trouble.code == "transport.unreachable"
    assert "a.example" in trouble.detail
    assert report.due > town.clock.now
    assert town.keys.made == 0
    town.down = set()
    town.live_until_active()
    assert moves(town) == []


# --- never down --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("registrar:swap-certificate", "chain."),
        ("cacerts:garbage", "est."),
        ("cacerts:status:0:code=403", "est.refused"),
        ("simpleenroll:status:0:code=403", "est.unauthorized"),
        ("simpleenroll:status:0:code=400", "est.rejected"),
        ("simpleenroll:key-mismatch", ".key-mismatch"),
        ("simpleenroll:foreign-ca", "chain."),
        ("simpleenroll:two-leaves", "several-certificates"),
        ("simpleenroll:issued-expired", ""),
        ("cacerts:status:0:code=503", "est.unavailable"),
        ("simpleenroll:status:0:code=500", "est.unavailable"),
    ],
)
def test_lies_refusals_and_hiccups_never_lead_down(tmp_path: Path, fault: str, code: str) -> None:
    town = Town(tmp_path, faults={"a.example": [fault]})
    town.step()
    trouble = town.identity.schedule.trouble or town.record.schedule.trouble
    assert trouble is not None
    assert code in trouble.code
    assert "b.example" not in {host for host, _ in town.asked}
    assert town.identity.ladder.moves == ()
    assert town.identity.credential.state is CredentialState.NONE


def test_a_lie_on_a_lower_rung_stops_the_search_and_keeps_the_domain(tmp_path: Path) -> None:
    town = Town(tmp_path, rungs=(A, B, C), faults={"b.example": ["registrar:swap-certificate"]})
    town.down = {"a.example"}
    town.step()
    assert "c.example" not in {host for host, _ in town.asked}
    trouble = town.identity.schedule.trouble
    assert trouble is not None
    assert trouble.code.startswith("chain.")
    assert town.record.domain.state is DomainState.VOUCHED, "a second server's lie says nothing of the domain"


def test_a_server_that_stays_busy_is_passed_in_the_end(tmp_path: Path) -> None:
    town = Town(tmp_path, faults={"a.example": ["cacerts:status:0:code=503"]})
    town.step()
    step_when_due(town, 5)
    assert not town.active
    step_when_due(town)
    assert town.active
    assert moves(town) == [("est", "est-2", "est.unavailable")]


# --- up again ----------------------------------------------------------------------------------------


def test_a_renewal_begins_at_the_top_and_the_return_has_a_reason(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.down = {"a.example"}
    town.step()
    town.step(renew=["ldevid"])
    assert town.identity.ladder.rung == "est-2"
    assert len(moves(town)) == 1, "staying is no move"
    town.down = set()
    town.asked.clear()
    town.step(renew=["ldevid"])
    assert town.asked[0][0] == "a.example"
    assert town.identity.credential.generation == 3
    assert moves(town) == [("est", "est-2", "transport.unreachable"), ("est-2", "est", ANSWERS)]


# --- after sending -----------------------------------------------------------------------------------


def test_a_sent_request_stays_on_its_rung_for_a_while(tmp_path: Path) -> None:
    town = Town(tmp_path, faults={"a.example": ["simpleenroll:drop-after:3"]})
    town.step()
    key = town.identity.transaction.key
    assert town.identity.transaction.state is TransactionState.REQUESTED
    step_when_due(town, 3)
    assert town.active
    assert town.identity.credential.key == key
    assert set(town.enrollments()) == {"a.example"}
    assert moves(town) == []


def test_a_sent_request_is_given_up_when_its_server_stays_away(tmp_path: Path) -> None:
    town = Town(tmp_path, faults={"a.example": ["simpleenroll:drop-after"]})
    town.step()
    town.down = {"a.example"}
    step_when_due(town, 5)
    assert town.keys.made == 1
    step_when_due(town)
    assert town.active
    assert moves(town) == [("est", "est-2", "transport.unreachable")]
    assert town.keys.refs() == {town.identity.credential.key}
    assert town.keys.made == 2, "the given-up request's key is not used again"


def test_a_pending_request_waits_a_day_for_its_server(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.world.est = replace(town.world.est, polls=1, retry_after=600)
    town.step()
    assert town.identity.transaction.state is TransactionState.PENDING
    key = town.identity.transaction.key
    town.down = {"a.example"}
    town.world.est = replace(town.world.est, polls=0)
    began = town.clock.now
    while (
        town.identity.transaction.key == key and town.identity.transaction.state is TransactionState.PENDING
    ):
        step_when_due(town)
        assert town.clock.now < began + timedelta(days=3)
    assert town.clock.now >= began + RECONSIDER
    assert town.active
    assert town.identity.ladder.rung == "est-2"


def test_near_its_end_a_renewal_has_less_patience(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.step()
    town.rebuild({"a.example": ["simplereenroll:drop-after"]})
    town.pass_time(timedelta(days=86))
    town.step(renew=["ldevid"])
    town.down = {"a.example"}
    step_when_due(town)
    assert town.identity.credential.generation == 2
    assert town.identity.ladder.rung == "est-2"


# --- the proof ---------------------------------------------------------------------------------------


def test_a_new_certificate_is_proved_at_another_rung_if_its_own_is_gone(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.step()
    town.rebuild({"a.example": ["cacerts:drop-before:0:after=1"]})
    town.asked.clear()
    town.step(renew=["ldevid"])
    assert town.identity.credential.generation == 2
    assert town.asked[-1] == ("b.example", "cacerts")


def test_a_new_certificate_that_another_rung_refuses_is_not_taken(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.step()
    town.rebuild({"a.example": ["cacerts:drop-before:0:after=1"], "b.example": ["cacerts:status:0:code=403"]})
    town.step(renew=["ldevid"])
    assert town.identity.credential.generation == 1
    assert town.identity.transaction.state is TransactionState.STAGED
    assert town.identity.schedule.trouble is not None
    assert town.identity.schedule.trouble.code == "proof.refused"


# --- power cuts --------------------------------------------------------------------------------------


class Cut(BaseException):
    """The power goes."""


class CuttingStore(StateStore):
    """Loses power before or after the commit number *at*."""

    def __init__(self, directory: Path, at: int, *, before: bool) -> None:
        super().__init__(directory)
        self._left = at
        self._before = before

    def commit(self, record: DeviceRecord) -> None:
        self._left -= 1
        if self._left == 0 and self._before:
            raise Cut
        super().commit(record)
        if self._left == 0:
            raise Cut


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_power_cut_anywhere_on_the_way_down_loses_nothing(tmp_path: Path, at: int, before: bool) -> None:
    town = Town(tmp_path, faults={"a.example": ["simpleenroll:status:0:code=404"]})
    environment = town.environment
    store = CuttingStore(town.settings.state_directory, at, before=before)
    try:
        Step(replace(environment, store=store)).run()
    except Cut:
        pass
    else:
        assert at > 9, "fewer commits than this test cuts"
    town.live_until_active()
    assert town.keys.refs() == {town.identity.credential.key}
    assert town.identity.ladder.rung == "est-2"
    assert all(isinstance(m, Move) for m in town.identity.ladder.moves)
