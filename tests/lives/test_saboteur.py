"""Break one rule of the agent, and some life must end with the judge's word on it: no rule is idle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdfast.host.durable import Directory
from holdfast.life.ladder import Down, way_down
from holdfast.life.record import Bar, Identity
from holdfast.wire import issued
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Purpose
from holdfast.worker import agenda, ascent, bootstrap, enrollment, setbacks, step
from holdfast.worker.deployment import Deployer
from holdfast.worker.standing import Inquiry
from holdfast_sim.faults import Fault
from years.house import House
from years.keys import SoftTpm
from years.life import BEGIN, PROFILES, Life, Profile
from years.misfortunes import Catalogue

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


def distrust_leads_down(patch: Patch) -> None:
    """A server that is not to be trusted is passed, like one that is not there."""
    patch.setattr(ascent, "way_down", _of_distrust)


def distrust_leads_down_in_secret(patch: Patch) -> None:
    """The same, and the record gives another reason."""
    distrust_leads_down(patch)
    patch.setattr(ascent, "Bar", lambda rung, _code, at: Bar(rung, "transport.unreachable", at))


def _of_distrust(cause: Any) -> Any:
    return Down.UNREACHABLE if isinstance(cause, TrustError) else way_down(cause)


def never_up_again(patch: Patch) -> None:
    """Whoever went down the ladder stays there."""

    def lowest(rungs: tuple[str, ...], ladder: Any, _now: datetime) -> tuple[str, ...]:
        return rungs[rungs.index(ladder.rung) :] if ladder.rung else rungs

    patch.setattr(ascent, "candidates", lowest)


def one_identity_only(patch: Patch) -> None:
    """The identities after the first are forgotten once they are there."""
    original = step.Step._in_turn

    def in_turn(self: Any) -> list[Any]:
        return [
            s
            for s in original(self)
            if s.name == "ldevid" or not self._record.identity(s.name).credential.chain
        ]

    patch.setattr(step.Step, "_in_turn", in_turn)


def wrong_clock_discourages(patch: Patch) -> None:
    """Without a clock that somebody vouches for, nothing is tried for days."""
    original = setbacks.next_attempt

    def late(schedule: Any, cause: Any, now: Any, random: Any, **more: Any) -> datetime:
        due = original(schedule, cause, now, random, **more)
        return due if now.trusted else due + timedelta(days=2)

    for module in (step, bootstrap):
        patch.setattr(module, "next_attempt", late)


TWO_SERVERS = House(("est", "est-2"))
TWO_IDENTITIES = House(more=1)
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
    (distrust_leads_down, "led down the ladder|lied to in one place", "registrar:swap-certificate:1"),
    (distrust_leads_down_in_secret, "lied to in one place", "registrar:swap-certificate:1"),
    (never_up_again, "in calm", ""),
    (one_identity_only, "without a usable credential|a busy loop", ""),
    (wrong_clock_discourages, "without an attempt", ""),
]
"""What is broken, one of the words that the judge must find for it, and a fault of the servers."""

MISHAPS = {losses_unnoticed: Catalogue.key_lost}
"""What must happen to see it, is rare, and may be hidden behind other mishaps."""

HARD = replace(PROFILES["week"], trouble=0.6)
"""So that a few lives meet every misfortune."""

HOUSES = {
    distrust_leads_down: TWO_SERVERS,
    distrust_leads_down_in_secret: TWO_SERVERS,
    never_up_again: TWO_SERVERS,
    one_identity_only: TWO_IDENTITIES,
}
"""Where it takes more than one server, or one identity, to see it."""


@pytest.mark.parametrize(
    ("break_it", "words", "fault"), SABOTAGE, ids=[broken.__name__ for broken, _, _ in SABOTAGE]
)
def test_a_broken_rule_ends_a_life(
    monkeypatch: Patch, break_it: Callable[[Patch], None], words: str, fault: str
) -> None:
    break_it(monkeypatch)
    for seed in range(MOST_SEEDS):
        profile = replace(HARD, trouble=0) if break_it in MISHAPS else HARD
        life = Life(profile, seed, years=1, house=HOUSES.get(break_it, House()))
        if fault:
            life.estate.begin_fault(Fault.parse(fault))
        if break_it in MISHAPS:
            life.expect(MISHAPS[break_it](life.catalogue), BEGIN + timedelta(days=100))
        if violations := life.run().violations:
            assert any(word in violations[0] for word in words.split("|")), violations
            assert f"--seed {seed} --tell" in violations[0]
            return
    raise AssertionError(f"{MOST_SEEDS} lives went well with a broken rule: {break_it.__doc__}")


@pytest.mark.parametrize("fault", sorted({fault for _, _, fault in SABOTAGE if fault}))
@pytest.mark.parametrize("house", [House(), TWO_SERVERS])
def test_the_same_fault_ends_no_life_of_an_agent_that_checks(fault: str, house: House) -> None:
    life = Life(PROFILES["week"], 0, years=1, house=house)
    life.estate.begin_fault(Fault.parse(fault))
    tally = life.run()
    assert tally.violations == []
    assert tally.faults[fault.removesuffix(":1")] >= 1


CALM = Profile("calm", timedelta(days=365), trouble=0, hurry=0)


def cut_off(house: House, *, by: str) -> Life:
    """A life whose only mishap is that the owner cuts the device off in its first year."""
    life = Life(CALM, 0, years=2, house=house)
    day = timedelta(days=1)
    if by == "revocation":
        life.plan(BEGIN + 100 * day, "revoked", life.estate.revoke)
    else:
        life.plan(BEGIN + 100 * day, "new root", life.estate.new_root)
        life.plan(BEGIN + 101 * day, "servers of the new CA", life.estate.new_servers)
    return life


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("by", ["revocation", "change of root"])
def test_who_was_cut_off_is_well_when_he_can_be(by: str, told: bool) -> None:
    tally = cut_off(House(told=told), by=by).run()
    assert tally.violations == []
    assert tally.renewals >= 2


def test_a_published_revocation_that_is_not_asked_for_ends_a_life(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Inquiry, "due", lambda self, record, now: False)
    assert cut_off(House(told=False), by="revocation").run().violations == []
    (violation,) = cut_off(House(told=True), by="revocation").run().violations
    assert "not well" in violation
    assert violation.startswith("2027-11")


@pytest.mark.parametrize("by", ["revocation", "change of root"])
def test_who_stays_cut_off_after_the_end_of_his_certificate_ends_a_life(monkeypatch: Patch, by: str) -> None:
    monkeypatch.setattr(step, "_estranged", lambda error: False)
    monkeypatch.setattr(
        enrollment.Enrollment, "_client", _always_with_the_credential(enrollment.Enrollment._client)
    )
    (violation,) = cut_off(House(), by=by).run().violations
    assert "not well" in violation
    assert violation.startswith("2028-06")


def _always_with_the_credential(original: Any) -> Any:
    """An agent that never shows its IDevID again."""

    def client(self: Any, record: Any, purpose: Any) -> Any:
        held = record.identity(self._settings.name).credential.chain
        return original(self, record, Purpose.REKEY if held else purpose)

    return client
