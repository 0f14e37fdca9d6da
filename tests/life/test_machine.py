"""The table: what it says, that it is unambiguous, and a walk loses neither key nor credential."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.keys.api import NO_KEY, KeyRef
from holdfast.life import events as ev
from holdfast.life import machine
from holdfast.life.diagram import document
from holdfast.life.impossible import DOMAIN_NEVER, IDENTITY_NEVER, why_not, why_not_domain
from holdfast.life.machine import DOMAIN_TABLE, IDENTITY_TABLE, decide
from holdfast.life.record import (
    Anchor,
    Credential,
    CredentialState,
    DeviceRecord,
    Domain,
    DomainState,
    Hint,
    Identity,
    Provenance,
    Retired,
    Transaction,
    TransactionState,
    Trouble,
)
from holdfast.life.search import Candidate, Source
from holdfast.wire.discovery.announced import Role
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.model import ClockState, KeyAlgorithm, Moment, Purpose

T0 = datetime(2027, 1, 1, tzinfo=UTC)
NOW = Moment(T0, T0, ClockState.TRUSTED)
TROUBLE = Trouble("est.test", "detail", "", "backoff", T0)
ANCHOR = Anchor(b"anchor", Provenance.VOUCHER, T0)
ROOT = Anchor(b"root", Provenance.CACERTS, T0)

EVENTS: dict[type, object] = {
    ev.BootstrapDue: ev.BootstrapDue(),
    ev.CandidatesFound: ev.CandidatesFound((Candidate("reg:443", Role.PROXY, Source.MDNS),)),
    ev.AttemptPrepared: ev.AttemptPrepared("reg:443", "n", b"pvr", b"cert", T0 + timedelta(days=4)),
    ev.VoucherPending: ev.VoucherPending(T0 + timedelta(seconds=9)),
    ev.RegistrarMoved: ev.RegistrarMoved("other:443"),
    ev.VoucherAccepted: ev.VoucherAccepted(b"voucher", ANCHOR, T0 + timedelta(minutes=1)),
    ev.BootstrapFailed: ev.BootstrapFailed(TROUBLE, T0 + timedelta(seconds=15)),
    ev.BootstrapInterrupted: ev.BootstrapInterrupted(TROUBLE, T0 + timedelta(seconds=15)),
    ev.RegistrarLost: ev.RegistrarLost(TROUBLE),
    ev.MeetingDue: ev.MeetingDue(),
    ev.CandidateRefused: ev.CandidateRefused(TROUBLE),
    ev.RegistrarFound: ev.RegistrarFound("other:443"),
    ev.DomainLost: ev.DomainLost(TROUBLE, T0 + timedelta(seconds=15)),
    ev.StepBegun: ev.StepBegun(),
    ev.RenewalDue: ev.RenewalDue(Purpose.REKEY),
    ev.CredentialLapsed: ev.CredentialLapsed(),
    ev.CredentialRevived: ev.CredentialRevived(),
    ev.CredentialRevoked: ev.CredentialRevoked(TROUBLE),
    ev.StandingDue: ev.StandingDue(),
    ev.StandingKnown: ev.StandingKnown(T0 + timedelta(days=1)),
    ev.IssuedTooEarly: ev.IssuedTooEarly(TROUBLE, T0 + timedelta(seconds=15)),
    ev.HintDue: ev.HintDue(),
    ev.HintHeard: ev.HintHeard(Hint(T0 + timedelta(hours=6))),
    ev.CredentialLost: ev.CredentialLost(TROUBLE),
    ev.ProofRefused: ev.ProofRefused(TROUBLE, T0 + timedelta(seconds=15)),
    ev.DeployDue: ev.DeployDue(),
    ev.FilesPlaced: ev.FilesPlaced("d1", anew=False),
    ev.HookRan: ev.HookRan(0),
    ev.HookFailed: ev.HookFailed(0, TROUBLE, T0 + timedelta(seconds=15)),
    ev.HooksEnded: ev.HooksEnded(complete=True),
    ev.DeployFailed: ev.DeployFailed("d1", TROUBLE, T0 + timedelta(seconds=15)),
    ev.OfferTaken: ev.OfferTaken(
        Purpose.INITIAL, "est", "est", KeyRef("k:new"), KeyAlgorithm.P256, 1, "ab", b"", (ROOT,), (b"i",)
    ),
    ev.CsrMade: ev.CsrMade(b"csr"),
    ev.AnchorsChanged: ev.AnchorsChanged((ROOT,), (b"i",), (Retired("ab", T0),)),
    ev.EnrollmentPending: ev.EnrollmentPending(T0 + timedelta(seconds=5), b"token", T0 + timedelta(days=30)),
    ev.CertificateIssued: ev.CertificateIssued((b"leaf",), T0 + timedelta(minutes=2)),
    ev.CredentialProved: ev.CredentialProved(),
    ev.KeysRetired: ev.KeysRetired(),
    ev.EnrollmentFailed: ev.EnrollmentFailed(TROUBLE, T0 + timedelta(seconds=15)),
    ev.IdentityDropped: ev.IdentityDropped(),
    ev.IdentityRestored: ev.IdentityRestored(),
    ev.IdentityForgotten: ev.IdentityForgotten(),
    ev.RungForsaken: ev.RungForsaken(TROUBLE, "est", Purpose.REKEY),
    ev.AttemptFailed: ev.AttemptFailed(TROUBLE, T0 + timedelta(seconds=15)),
}


def identity_in(credential: CredentialState, transaction: TransactionState) -> Identity:
    held = (
        Credential()
        if credential is CredentialState.NONE
        else Credential(credential, KeyRef("k:held"), (b"old",), 1)
    )
    under_way = (
        Transaction()
        if transaction is TransactionState.NONE
        else Transaction(
            transaction, Purpose.REKEY, "est", KeyRef("k:pending"), generation=2, id="ff", chain=(b"new",)
        )
    )
    return Identity("ldevid", held, under_way)


def record_in(credential: CredentialState, transaction: TransactionState) -> DeviceRecord:
    domain = Domain(DomainState.VOUCHED, "reg:443", anchors=(ANCHOR,))
    return DeviceRecord(T0, domain).with_identity(identity_in(credential, transaction))


def test_every_event_has_an_example() -> None:
    assert set(EVENTS) == {*get_args(ev.DomainEvent), *get_args(ev.IdentityEvent)}


@pytest.mark.parametrize("kind", get_args(ev.IdentityEvent))
@pytest.mark.parametrize(("credential", "transaction"), tuple(product(CredentialState, TransactionState)))
def test_every_identity_pair_is_a_row_or_named_impossible(
    kind: type, credential: CredentialState, transaction: TransactionState
) -> None:
    rows = [
        r
        for r in IDENTITY_TABLE
        if r.event is kind and credential in r.credentials and transaction in r.transactions
    ]
    impossible = why_not(kind, credential, transaction)
    assert len(rows) == (0 if impossible else 1), "neither a row nor in impossible.py, or both"
    record = record_in(credential, transaction)
    if impossible:
        with pytest.raises(LocalProtocolError) as caught:
            decide(record, EVENTS[kind], NOW, identity="ldevid")
        assert caught.value.code == "machine.impossible"
        assert impossible in caught.value.detail
        return
    after, _ = decide(record, EVENTS[kind], NOW, identity="ldevid")
    entry = after.identity("ldevid")
    assert entry.credential.state is (rows[0].credential or credential)
    assert entry.transaction.state is (rows[0].transaction or transaction)


@pytest.mark.parametrize("kind", get_args(ev.DomainEvent))
@pytest.mark.parametrize("state", DomainState)
def test_every_domain_pair_is_a_row_or_named_impossible(kind: type, state: DomainState) -> None:
    rows = [r for r in DOMAIN_TABLE if r.event is kind and state in r.sources]
    impossible = why_not_domain(kind, state)
    assert len(rows) == (0 if impossible else 1), "neither a row nor in impossible.py, or both"
    record = DeviceRecord(T0, Domain(state))
    if impossible:
        with pytest.raises(LocalProtocolError, match=impossible):
            decide(record, EVENTS[kind], NOW)
        return
    after, _ = decide(record, EVENTS[kind], NOW)
    assert after.domain.state is (rows[0].target or state)


def test_no_pair_stands_twice() -> None:
    pairs = Counter(
        (c, t, r.event) for r in IDENTITY_TABLE for c in r.credentials for t in r.transactions
    ) + Counter((s, s, r.event) for r in DOMAIN_TABLE for s in r.sources)
    assert [pair for pair, count in pairs.items() if count > 1] == []


def test_every_impossibility_has_a_reason_and_none_says_nothing() -> None:
    for never in (*IDENTITY_NEVER, *DOMAIN_NEVER):
        assert len(never.why) > 10
        assert never.why in document()
    assert all(n.credentials and n.transactions for n in IDENTITY_NEVER)
    assert all(n.states for n in DOMAIN_NEVER)


def test_the_diagram_in_the_documentation_is_that_of_the_tables() -> None:
    stored = Path(__file__).parents[2] / "docs" / "life.md"
    assert stored.read_text() == document(), "stale: run make docs"


def test_a_table_row_that_lies_about_its_target_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    lying = machine.DomainRow(
        frozenset({DomainState.NONE}), ev.BootstrapDue, DomainState.VOUCHED, lambda r, *_: r, lambda _e: ()
    )
    monkeypatch.setattr(machine, "DOMAIN_TABLE", (lying,))
    with pytest.raises(LocalProtocolError) as caught:
        decide(DeviceRecord(T0), ev.BootstrapDue(), NOW)
    assert caught.value.code == "machine.table"


def test_idling_changes_nothing() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.NONE)
    later = Moment(T0 + timedelta(days=1), T0, ClockState.TRUSTED)
    after, effects = decide(record, ev.StepBegun(), later, identity="ldevid")
    assert after is record
    assert effects == ()


def test_the_floor_rises_with_a_trusted_clock_only_and_never_falls() -> None:
    record = record_in(CredentialState.NONE, TransactionState.REQUESTED)
    event = ev.CertificateIssued((b"leaf",), T0 + timedelta(hours=1))
    untrusted = Moment(T0 + timedelta(days=9), T0, ClockState.FLOOR_ONLY)
    assert decide(record, event, untrusted, identity="ldevid")[0].time_floor == T0 + timedelta(hours=1)
    trusted = Moment(T0 + timedelta(days=9), T0, ClockState.TRUSTED)
    assert decide(record, event, trusted, identity="ldevid")[0].time_floor == T0 + timedelta(days=9)
    past = ev.CertificateIssued((b"leaf",), T0 - timedelta(days=400))
    assert decide(record, past, untrusted, identity="ldevid")[0].time_floor == T0


def test_promotion_retires_the_old_key_and_only_then() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.STAGED)
    after, effects = decide(record, ev.CredentialProved(), NOW, identity="ldevid")
    entry = after.identity("ldevid")
    assert entry.credential == Credential(
        CredentialState.ACTIVE, KeyRef("k:pending"), (b"new",), 2, since=NOW.now
    )
    assert entry.retiring == (KeyRef("k:held"),)
    assert effects == (ev.Deploy(),)
    for event in (ev.FilesPlaced("d1", anew=True), ev.HookRan(0), ev.HooksEnded(complete=False)):
        after, effects = decide(after, event, NOW, identity="ldevid")
        assert ev.RetireKeys() not in effects
    _, effects = decide(after, ev.HooksEnded(complete=True), NOW, identity="ldevid")
    assert effects == (ev.RetireKeys(),)


def test_a_same_key_renewal_retires_nothing() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.NONE)
    offer = ev.OfferTaken(
        Purpose.RENEW, "est", "est", KeyRef("k:held"), KeyAlgorithm.P256, 2, "ab", b"", (ROOT,), ()
    )
    for event in (offer, ev.CsrMade(b"csr"), ev.CertificateIssued((b"new",), T0), ev.CredentialProved()):
        record, _ = decide(record, event, NOW, identity="ldevid")
    assert record.identity("ldevid").retiring == ()
    assert record.identity("ldevid").credential.key == "k:held"


def test_a_failed_same_key_renewal_keeps_the_key() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.NONE)
    offer = ev.OfferTaken(
        Purpose.RENEW, "est", "est", KeyRef("k:held"), KeyAlgorithm.P256, 2, "ab", b"", (ROOT,), ()
    )
    for event in (offer, ev.CsrMade(b"csr"), EVENTS[ev.EnrollmentFailed]):
        record, _ = decide(record, event, NOW, identity="ldevid")
    assert record.identity("ldevid").retiring == ()


def test_a_lapsed_credential_drops_its_renewal_but_keeps_a_staged_one() -> None:
    dropped, effects = decide(
        record_in(CredentialState.ACTIVE, TransactionState.PENDING),
        ev.CredentialLapsed(),
        NOW,
        identity="ldevid",
    )
    assert dropped.identity("ldevid").transaction == Transaction()
    assert dropped.identity("ldevid").retiring == (KeyRef("k:pending"),)
    assert effects == (ev.RetireKeys(), ev.Discover(Purpose.INITIAL))
    kept, effects = decide(
        record_in(CredentialState.ACTIVE, TransactionState.STAGED),
        ev.CredentialLapsed(),
        NOW,
        identity="ldevid",
    )
    assert kept.identity("ldevid").transaction.chain == (b"new",)
    assert effects == (ev.ProveCredential(),)


def test_a_second_registrar_is_asked_at_once_and_a_redirect_is_remembered() -> None:
    record, effects = decide(
        DeviceRecord(T0, Domain(DomainState.PROVISIONAL)), ev.BootstrapFailed(TROUBLE, None), NOW
    )
    assert effects == (ev.PrepareAttempt(),)
    assert record.schedule.attempts == 1
    record, _ = decide(DeviceRecord(T0, Domain(DomainState.PROVISIONAL)), ev.RegistrarMoved("b:1"), NOW)
    record, _ = decide(record, EVENTS[ev.AttemptPrepared], NOW)
    assert record.domain.redirected


class Walk(RuleBasedStateMachine):
    """Random walks along the table keep what the rules promise."""

    @initialize()
    def start(self) -> None:
        self.record = DeviceRecord(T0, Domain(DomainState.VOUCHED, anchors=(ANCHOR,)))
        self.generation = 0
        self.floor = T0
        self.keys: set[str] = set()

    def _happen(self, event: object) -> None:
        self.record, self.effects = decide(self.record, event, NOW, identity="ldevid")

    @property
    def entry(self) -> Identity:
        return self.record.identity("ldevid")

    def _in(self, *states: str) -> bool:
        return self.entry.transaction.state.value in states

    @precondition(lambda self: self._in("none"))
    @rule(purpose=st.sampled_from(Purpose))
    def offer(self, purpose: Purpose) -> None:
        same = purpose is Purpose.RENEW and self.entry.credential.state is CredentialState.ACTIVE
        self.generation += 1
        key = self.entry.credential.key if same else KeyRef(f"k:{self.generation}")
        self.keys.add(key)
        self._happen(
            ev.OfferTaken(
                purpose, "est", "est", key, KeyAlgorithm.P256, self.generation, "ab", b"", (ROOT,), ()
            )
        )

    @precondition(lambda self: self._in("keyed", "requested", "pending"))
    @rule()
    def csr(self) -> None:
        self._happen(EVENTS[ev.CsrMade])

    @precondition(lambda self: self._in("requested", "pending"))
    @rule(sha=st.sampled_from("abcdef"))
    def anchors(self, sha: str) -> None:
        before = {r.sha256 for r in self.record.domain.retired}
        self._happen(ev.AnchorsChanged((ROOT,), (b"i",), (Retired(sha, T0),)))
        assert {r.sha256 for r in self.record.domain.retired} == before | {sha}
        assert self.effects[0].refreshed

    @precondition(lambda self: self._in("requested", "pending"))
    @rule()
    def pending(self) -> None:
        self._happen(EVENTS[ev.EnrollmentPending])

    @precondition(lambda self: self._in("requested", "pending"))
    @rule()
    def issued(self) -> None:
        self._happen(EVENTS[ev.CertificateIssued])

    @precondition(lambda self: self._in("staged"))
    @rule()
    def proved(self) -> None:
        self._happen(ev.CredentialProved())

    @precondition(lambda self: not self._in("none"))
    @rule()
    def failed(self) -> None:
        held = self.entry.credential
        self._happen(EVENTS[ev.EnrollmentFailed])
        assert self.entry.credential == held

    @precondition(lambda self: self._in("keyed", "requested", "pending"))
    @rule()
    def forsaken(self) -> None:
        held, key = self.entry.credential, self.entry.transaction.key
        self._happen(EVENTS[ev.RungForsaken])
        assert self.entry.credential == held
        assert key == held.key or key in self.entry.retiring
        assert self.effects[-1] == ev.Discover(Purpose.REKEY)

    @precondition(lambda self: self.entry.credential.state is CredentialState.ACTIVE)
    @rule()
    def lapsed(self) -> None:
        self._happen(ev.CredentialLapsed())

    @precondition(lambda self: self.entry.credential.state is CredentialState.ACTIVE and self._in("none"))
    @rule()
    def lost(self) -> None:
        self._happen(EVENTS[ev.CredentialLost])
        assert self.effects == (ev.RetireKeys(), ev.Discover(Purpose.INITIAL))

    @rule(kind=st.sampled_from(get_args(ev.IdentityEvent)))
    def anything(self, kind: type) -> None:
        """Any event in any state is either refused as impossible, and changes nothing, or is a row."""
        before, event = self.record, EVENTS[kind]
        state = self.entry.credential.state, self.entry.transaction.state
        why = why_not(kind, *state)
        if why is not None:
            with pytest.raises(LocalProtocolError, match=r"^machine\.impossible"):
                self._happen(event)
            assert self.record is before
        else:
            self._happen(event)
            self.keys |= {self.entry.transaction.key, self.entry.credential.key} - {NO_KEY}
            self.keys &= self.record.key_refs() if kind is ev.KeysRetired else self.keys

    @rule()
    def postponed(self) -> None:
        self._happen(EVENTS[ev.AttemptFailed])

    @rule()
    def retired(self) -> None:
        self.keys -= set(self.entry.retiring)
        self._happen(ev.KeysRetired())

    @invariant()
    def every_key_is_named_and_none_that_is_used_is_retired(self) -> None:
        used = {self.entry.credential.key, self.entry.transaction.key} - {NO_KEY}
        assert self.keys - {NO_KEY} <= self.record.key_refs()
        assert not used & set(self.entry.retiring)

    @invariant()
    def an_active_credential_has_key_and_chain(self) -> None:
        credential = self.entry.credential
        assert credential.state is CredentialState.NONE or (credential.key and credential.chain)

    @invariant()
    def the_floor_never_falls(self) -> None:
        assert self.record.floor >= self.floor
        self.floor = self.record.floor


Walk.TestCase.settings = settings(stateful_step_count=40)
TestWalk = Walk.TestCase


def test_records_hide_what_is_bulky_or_private_from_logs() -> None:
    hidden = {f.name for f in fields(Domain) if not f.repr} | {
        f.name for f in fields(Transaction) if not f.repr
    }
    assert {"pvr", "voucher", "csr", "resume"} <= hidden


def test_a_row_of_failures_remembers_when_it_began_and_an_end_forgets_it() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.REQUESTED)
    for hours in (0, 1):
        trouble = Trouble("est.test", "detail", "", "backoff", T0 + timedelta(hours=hours))
        record, _ = decide(record, ev.AttemptFailed(trouble, T0 + timedelta(hours=2)), NOW, identity="ldevid")
    schedule = record.identity("ldevid").schedule
    assert (schedule.since, schedule.attempts) == (T0, 2)
    assert schedule.trouble is not None
    assert schedule.trouble.at == T0 + timedelta(hours=1)
    pending, _ = decide(record, EVENTS[ev.EnrollmentPending], NOW, identity="ldevid")
    assert pending.identity("ldevid").schedule.since == T0
    for event in (EVENTS[ev.CertificateIssued], ev.CredentialProved()):
        record, _ = decide(record, event, NOW, identity="ldevid")
    assert record.identity("ldevid").schedule.since is None


def test_a_transaction_remembers_when_it_began() -> None:
    record = record_in(CredentialState.ACTIVE, TransactionState.NONE)
    record, _ = decide(record, EVENTS[ev.OfferTaken], NOW, identity="ldevid")
    later = Moment(T0 + timedelta(hours=1), T0, ClockState.TRUSTED)
    record, _ = decide(record, EVENTS[ev.CsrMade], later, identity="ldevid")
    assert record.identity("ldevid").transaction.since == T0
