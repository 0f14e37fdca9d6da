"""Break one rule of the agent, and some life must end with the judge's word on it: no rule is idle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast.host.durable import Directory
from holdfast.life.record import Identity
from holdfast.wire import issued
from holdfast.worker import agenda, bootstrap, enrollment, setbacks, step
from holdfast.worker.deployment import Deployer
from holdfast_sim.faults import Fault
from years.keys import SoftTpm
from years.life import PROFILES, Life

Patch = pytest.MonkeyPatch
MOST_SEEDS = 12


def no_fsync(patch: Patch) -> None:
    """Commits that are not durable on return."""
    patch.setattr(Directory, "sync", lambda self: None)


def keys_stay(patch: Patch) -> None:
    """Nothing destroys the keys that were retired."""
    patch.setattr(SoftTpm, "destroy", lambda self, ref: None)


def orphans_stay(patch: Patch) -> None:
    """Nobody collects what an interrupted step left."""
    patch.setattr(step.Step, "_collect_orphans", lambda self: None)


def any_issuer(patch: Patch) -> None:
    """A new certificate is taken whoever signed it."""
    patch.setattr(issued.chain, "validate", lambda given, anchors, at, rule: given[:1])


def any_key(patch: Patch) -> None:
    """A new certificate is taken whatever key it is for."""
    patch.setattr(issued, "_pick", lambda certificates, asked, *rest: (certificates[0], certificates[1:]))


def give_up(patch: Patch) -> None:
    """After five failures nothing is tried any more."""
    original = setbacks.next_attempt

    def never(schedule: Any, cause: Any, now: Any, random: Any, **more: Any) -> datetime:
        due = original(schedule, cause, now, random, **more)
        return due if schedule.attempts < 5 else now.now + timedelta(days=6)

    for module in (step, bootstrap):
        patch.setattr(module, "next_attempt", never)


def no_backoff(patch: Patch) -> None:
    """Every attempt follows the one before after a second."""
    for module in (step, bootstrap):
        patch.setattr(module, "next_attempt", lambda schedule, cause, now, random, **more: now.now)


def floor_falls(patch: Patch) -> None:
    """The floor falls with every change."""
    original = step.decide

    def decide(record: Any, event: Any, now: Any, **more: Any) -> Any:
        changed, effects = original(record, event, now, **more)
        return replace(
            changed, floor=changed.floor - timedelta(days=1)
        ) if changed != record else record, effects

    patch.setattr(step, "decide", decide)


def losses_unnoticed(patch: Patch) -> None:
    """A key that is gone is found out at the next renewal."""
    patch.setattr(step.Step, "_loss", lambda self, entry: None)


def old_key_first(patch: Patch) -> None:
    """The old key goes before the new certificate is there."""
    original = enrollment.Enrollment.make_request

    def make_request(self: Any, record: Any, now: Any) -> Any:
        self._env.keys.destroy(record.identity(self._settings.name).credential.key)
        return original(self, record, now)

    patch.setattr(enrollment.Enrollment, "make_request", make_request)


def not_deployed(patch: Patch) -> None:
    """Other programs keep the first certificate for ever."""
    patch.setattr(Deployer, "_current", lambda self: 1)
    patch.setattr(Deployer, "due", lambda self, record, now: False)
    original = Deployer.place

    def place(self: Any, record: Any) -> Any:
        generation = record.identity(self._settings.name).credential.generation
        return original(self, record) if generation == 1 else original(self, _as_first(record))

    def _as_first(record: Any) -> Any:
        entry: Identity = record.identity("ldevid")
        return record.with_identity(replace(entry, credential=replace(entry.credential, generation=1)))

    patch.setattr(Deployer, "place", place)


def clock_believed(patch: Patch) -> None:
    """A clock that nobody vouches for may say how old a certificate is."""

    def life_of(entry: Identity, _now: Any) -> tuple[datetime, datetime]:
        leaf = agenda.leaf_of(entry)
        return leaf.not_valid_before_utc, leaf.not_valid_after_utc

    patch.setattr(agenda, "life_of", life_of)


def never_renewed(patch: Patch) -> None:
    """The turn never comes before the end."""
    patch.setattr(agenda, "renewal_moment", lambda begin, end, *rest: end + timedelta(days=1))


SABOTAGE: list[tuple[Callable[[Patch], None], str, str]] = [
    (no_fsync, "no whole record|the floor fell|keys|deployed", ""),
    (keys_stay, "in quiet|orphan", ""),
    (orphans_stay, "orphan|in quiet", ""),
    (any_issuer, "not from the owner's CA", "simplereenroll:foreign-ca:1"),
    (any_key, "not that of its certificate", "simplereenroll:key-mismatch:1"),
    (give_up, "without an attempt|not well", ""),
    (no_backoff, "a busy loop", ""),
    (floor_falls, "the floor fell", ""),
    (losses_unnoticed, "without a usable credential", ""),
    (old_key_first, "without a usable credential|ended with", ""),
    (not_deployed, "is deployed", ""),
    (clock_believed, "a busy loop", ""),
    (never_renewed, "without a usable credential", ""),
]
"""What is broken, one of the words that the judge must find for it, and a fault of the servers."""


@pytest.mark.parametrize(
    ("break_it", "words", "fault"), SABOTAGE, ids=[broken.__name__ for broken, _, _ in SABOTAGE]
)
def test_a_broken_rule_ends_a_life(
    monkeypatch: Patch, break_it: Callable[[Patch], None], words: str, fault: str
) -> None:
    break_it(monkeypatch)
    for seed in range(MOST_SEEDS):
        life = Life(PROFILES["week"], seed, years=1)
        if fault:
            life.estate.begin_fault(Fault.parse(fault))
        if violations := life.run().violations:
            assert any(word in violations[0] for word in words.split("|")), violations
            assert f"--seed {seed} --tell" in violations[0]
            return
    raise AssertionError(f"{MOST_SEEDS} lives went well with a broken rule: {break_it.__doc__}")


@pytest.mark.parametrize("fault", [fault for _, _, fault in SABOTAGE if fault])
def test_the_same_fault_ends_no_life_of_an_agent_that_checks(fault: str) -> None:
    life = Life(PROFILES["week"], 0, years=1)
    life.estate.begin_fault(Fault.parse(fault))
    tally = life.run()
    assert tally.violations == []
    assert tally.faults[fault.removesuffix(":1")] >= 1
