"""When a worker runs, who is served by it, what is remembered, and when this process counts as ill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.host.journal import Message
from holdfast.resident.agent import (
    FIRST_RETRY,
    LOCKED_RETRY,
    LONGEST_RETRY,
    LONGEST_WAIT,
    OVERDUE,
    SHORTEST_WAIT,
    Agent,
    Want,
)
from holdfast.resident.attempt import Attempt, Result
from holdfast.resident.messages import (
    IDENTITY_ACTIVE,
    IDENTITY_LOST,
    OPERATOR_NEEDED,
    STEP_DONE,
    STEP_FAILED,
    WORKER_BROKEN,
)
from holdfast.resident.reports import (
    Effect,
    IdentityFiles,
    IdentityTold,
    Progress,
    Refusal,
    Report,
    Settings,
    Trouble,
)


class Heard:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[Message, str, dict[str, str]]] = []

    def event(self, message: Message, text: str, fields: Mapping[str, str] = {}) -> None:
        self.events.append((message, text, dict(fields)))

    def kinds(self) -> list[Message]:
        return [message for message, *_ in self.events]


class Worker(Attempt):
    """An attempt without a process."""

    def __init__(self, want: Want, longest: float) -> None:
        self.want = want
        self.longest = longest
        self.progress = None
        self.settings = None
        self.result: Result | None = None
        self.deadline = 100.0
        self.asked_to_end = False
        self.is_stuck = False

    def proceed(self, now: float) -> Result | None:
        return self.result

    def ask_to_end(self, now: float) -> None:
        self.asked_to_end = True

    def stuck(self, now: float) -> bool:
        return self.is_stuck


class Stage:
    """An agent with its workers in our hand."""

    def __init__(self) -> None:
        self.log = Heard()
        self.workers: list[Worker] = []
        self.fails: OSError | None = None
        self.agent = Agent(self._start, self.log, random=lambda: 1.0)

    def _start(self, want: Want, now: float, longest: float) -> Worker:
        if self.fails is not None:
            raise self.fails
        self.workers.append(Worker(want, longest))
        return self.workers[-1]

    def end(self, result: Result, now: float = 0.0) -> None:
        self.workers[-1].result = result
        self.agent.tick(now)
        assert self.agent.attempt is None


IDENTITY = IdentityTold("ldevid", "active", 1, 2e9, "none", "", "", 0)


def report(wait: float = 60.0, **more: Any) -> Report:
    return Report(**{"state": "all is well", "wait": wait, **more})


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.agent.tick(0.0)
    return stage


def test_it_begins_at_once_and_comes_back_when_it_is_told(stage: Stage) -> None:
    assert len(stage.workers) == 1
    assert stage.agent.next_at() == 100.0, "the worker's deadline"
    stage.end(report(60.0))
    assert stage.agent.next_at() == 60.0
    stage.agent.tick(59.9)
    assert len(stage.workers) == 1
    stage.agent.tick(60.0)
    assert len(stage.workers) == 2


@pytest.mark.parametrize(("told", "waits"), [(0.0, SHORTEST_WAIT), (1e6, LONGEST_WAIT)])
def test_waits_are_bounded(stage: Stage, told: float, waits: float) -> None:
    stage.end(report(told))
    assert stage.agent.next_at() == waits


def test_workers_without_a_report_come_back_ever_later(stage: Stage) -> None:
    waits = []
    now = 0.0
    for _ in range(9):
        stage.end(Refusal(Trouble("worker.crashed", "it fell")), now)
        waits.append(stage.agent.next_at() - now)
        now = stage.agent.next_at()
        stage.agent.tick(now)
    assert waits[0] == FIRST_RETRY
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_RETRY
    stage.end(report(5.0), now)
    stage.agent.tick(now + 5.0)
    stage.end(Refusal(Trouble("worker.crashed", "it fell")), now)
    assert stage.agent.next_at() == now + FIRST_RETRY, "a good one in between forgives"


def test_a_step_of_somebody_else_is_waited_out(stage: Stage) -> None:
    stage.end(Refusal(Trouble("state.locked", "in use")))
    assert stage.agent.next_at() == LOCKED_RETRY
    assert stage.log.events == []


def test_what_a_person_must_mend_is_not_tried_every_minute(stage: Stage) -> None:
    stage.end(Refusal(Trouble("config.invalid", "line 1", retry="operator")))
    assert stage.agent.next_at() == LONGEST_RETRY
    assert stage.log.kinds() == [OPERATOR_NEEDED]


def test_a_worker_that_does_not_start_is_a_failed_attempt(stage: Stage) -> None:
    stage.end(report(1.0))
    stage.fails = OSError(12, "Cannot allocate memory")
    stage.agent.tick(1.0)
    assert stage.agent.refusal is not None
    assert stage.agent.refusal.trouble.code == "worker.no-start"
    assert stage.log.kinds()[-1] == WORKER_BROKEN


def test_requests_are_served_by_one_worker_after_the_running_one(stage: Stage) -> None:
    told: list[tuple[str, object]] = []
    stage.agent.ask(Want(frozenset({"a"})), lambda t: told.append(("first", t)))
    stage.agent.ask(Want(frozenset({"b"}), hasten=True), lambda t: told.append(("second", t)))
    stage.agent.tick(0.0)
    assert len(stage.workers) == 1, "one at a time"
    stage.end(report())
    assert told == [], "the worker that ran already serves nobody"
    stage.agent.tick(0.0)
    assert stage.workers[-1].want == Want(frozenset({"a", "b"}), hasten=True)
    progress = Progress("Enroll", "a", 30.0)
    stage.workers[-1].progress = progress
    before = stage.workers[-1]

    def proceed(_now: float) -> None:
        before.progress = Progress("Deploy", "a", 30.0)

    before.proceed = proceed  # type: ignore[method-assign,assignment]
    stage.agent.tick(0.0)
    assert told == [("first", before.progress), ("second", before.progress)]
    del before.proceed
    stage.end(report(state="done"))
    assert [t for _, t in told[2:]] == [stage.agent.report] * 2
    stage.agent.tick(60.0)
    assert stage.workers[-1].want == Want(), "a request is served once"


def test_who_went_away_is_not_told(stage: Stage) -> None:
    told: list[object] = []
    stage.agent.ask(Want(), told.append)
    stage.agent.forget(told.append)
    stage.end(report())
    stage.agent.tick(0.0)
    stage.end(report())
    assert told == []


def test_settings_are_taken_over_once_and_kept_when_a_worker_breaks(stage: Stage) -> None:
    seen: list[Settings] = []
    stage.agent.configured.append(seen.append)
    settings = Settings((IdentityFiles("ldevid", "/x"),), worker_seconds=120.0)

    def proceed(_now: float) -> None:
        stage.workers[0].settings = settings

    stage.workers[0].proceed = proceed  # type: ignore[method-assign,assignment]
    stage.agent.tick(0.0)
    stage.agent.tick(0.0)
    assert seen == [settings]
    del stage.workers[0].proceed
    stage.end(Refusal(Trouble("worker.crashed", "it fell")))
    stage.agent.tick(1e4)
    assert stage.agent.settings == settings
    assert stage.workers[-1].longest == 120.0


def test_it_is_ill_when_a_due_step_is_not_made_or_a_worker_cannot_be_ended(stage: Stage) -> None:
    assert stage.agent.healthy(1e6), "a worker that hangs is not our illness"
    stage.workers[0].is_stuck = True
    assert not stage.agent.healthy(0.0)
    stage.workers[0].is_stuck = False
    stage.end(report(60.0))
    assert stage.agent.healthy(60.0 + OVERDUE - 1)
    assert not stage.agent.healthy(60.0 + OVERDUE + 1)


def test_it_stops_with_its_worker_and_starts_no_other(stage: Stage) -> None:
    stage.agent.stop(5.0)
    assert stage.workers[0].asked_to_end
    assert not stage.agent.stopped
    stage.end(Refusal(Trouble("worker.stopped", "told to")), 5.0)
    assert stage.agent.stopped
    assert stage.agent.next_at() < 5.0, "the loop must come round at once to see it"
    stage.agent.ask(Want())
    stage.agent.tick(1e9)
    assert len(stage.workers) == 1
    assert stage.agent.healthy(1e9)
    assert stage.log.events == []


def test_every_change_can_be_seen_by_its_serial(stage: Stage) -> None:
    serials = [stage.agent.serial]
    stage.end(report())
    serials.append(stage.agent.serial)
    stage.agent.tick(60.0)
    serials.append(stage.agent.serial)
    assert serials == sorted(set(serials))


def test_the_log_tells_what_is_new_with_its_fields_and_only_once(stage: Stage) -> None:
    effect = Effect("Enroll", "ldevid", "est", "0af3", "CertificateIssued", 0.012)
    trouble = Trouble("est.key-mismatch", "no certificate is for our key", "RFC 7030 §4.2.3")
    stage.end(report(identities=(IDENTITY,), effects=(effect,)))
    kinds = stage.log.kinds()
    assert kinds == [IDENTITY_ACTIVE, STEP_DONE, STEP_DONE]
    _, text, fields = stage.log.events[1]
    assert text == "Enroll ldevid: CertificateIssued (12 ms)"
    assert (fields["HOLDFAST_PROTOCOL"], fields["HOLDFAST_TRANSACTION"]) == ("est", "0af3")
    assert fields["HOLDFAST_STATE"] == "all is well"

    stage.agent.tick(60.0)
    stage.end(report(identities=(IDENTITY,)), 60.0)
    assert stage.log.kinds() == kinds, "nothing is new"

    for _ in range(2):
        stage.agent.tick(1e6)
        stage.end(report(identities=(IDENTITY._replace(state="expired"),), trouble=trouble), 1e6)
        stage.agent._due = 1e6
    assert stage.log.kinds()[3:] == [IDENTITY_LOST, STEP_FAILED]
    _, text, fields = stage.log.events[-1]
    assert text == "est.key-mismatch: no certificate is for our key (RFC 7030 §4.2.3)"
    assert fields["HOLDFAST_REASON"] == "est.key-mismatch"

    stage.agent.tick(1e6)
    stage.end(report(identities=(IDENTITY._replace(generation=2),)), 1e6)
    assert stage.log.kinds()[-1] == IDENTITY_ACTIVE


def test_a_new_generation_of_an_active_identity_is_told(stage: Stage) -> None:
    stage.end(report(identities=(IDENTITY,)))
    stage.agent.tick(60.0)
    stage.end(report(identities=(IDENTITY._replace(generation=2),)), 60.0)
    assert stage.log.events[-1][1] == "ldevid is active, generation 2"
