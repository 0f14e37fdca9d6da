"""Every transition of a device, in one table (ARCHITECTURE §5).

:func:`decide` is pure: it takes the record and what happened, and returns the new record and what to do
next. The worker commits the record before it does anything of that. A pair of state and event that no
row names is impossible: meeting it is our own bug and raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from holdfast.keys.api import NO_KEY, KeyRef
from holdfast.life import events as ev
from holdfast.life.impossible import why_not, why_not_domain
from holdfast.life.ladder import arrived, barred
from holdfast.life.record import (
    Credential,
    CredentialState,
    Deployment,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Schedule,
    Transaction,
    TransactionState,
    Trouble,
)
from holdfast.life.search import Refusal, Search, proved, refused, took
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.model import Moment, Purpose

Effects = tuple[ev.Effect, ...]

# --- the domain --------------------------------------------------------------------------------------

_D = DomainState


@dataclass(frozen=True, slots=True)
class DomainRow:
    """From any of *sources*, *event* leads to *target* (None: the state stays) and asks for *effects*."""

    sources: frozenset[DomainState]
    event: type[ev.DomainEvent]
    target: DomainState | None
    apply: Callable[[DeviceRecord, Any, Moment], DeviceRecord]
    effects: Callable[[Any], Effects]


def _nothing(_event: object) -> Effects:
    return ()


def _always(*effects: ev.Effect) -> Callable[[object], Effects]:
    return lambda _event: effects


def _same(record: DeviceRecord, _event: object, _now: Moment) -> DeviceRecord:
    return record


def _prepared(record: DeviceRecord, event: ev.AttemptPrepared, _now: Moment) -> DeviceRecord:
    domain = Domain(
        state=_D.PROVISIONAL,
        registrar=event.registrar,
        redirected=record.domain.redirected,
        visited=record.domain.visited,
        nonce=event.nonce,
        pvr=event.pvr,
        registrar_certificate=event.registrar_certificate,
        deadline=event.deadline,
    )
    return replace(record, domain=domain, search=took(record.search))


def _found(record: DeviceRecord, event: ev.CandidatesFound, now: Moment) -> DeviceRecord:
    search = replace(record.search, waiting=event.candidates, trying=None, silent=event.silent, at=now.now)
    return replace(record, search=search)


def _voucher_pending(record: DeviceRecord, event: ev.VoucherPending, _now: Moment) -> DeviceRecord:
    domain = replace(record.domain, polls=record.domain.polls + 1)
    return replace(record, domain=domain, schedule=replace(record.schedule, due=event.due))


def _moved(record: DeviceRecord, event: ev.RegistrarMoved, _now: Moment) -> DeviceRecord:
    visited = (*record.domain.visited, record.domain.registrar)
    return replace(record, domain=Domain(registrar=event.location, redirected=True, visited=visited))


def _vouched(record: DeviceRecord, event: ev.VoucherAccepted, _now: Moment) -> DeviceRecord:
    domain = Domain(
        state=_D.VOUCHED,
        registrar=event.est_server or record.domain.registrar,
        est_domain=bool(event.est_server),
        voucher=event.voucher,
        anchors=(event.anchor,),
        floor=event.seen,
    )
    # The count stays until a credential works: a domain that vouches for the device but does not enroll it
    # must not have the first turn again.
    schedule = Schedule(attempts=record.schedule.attempts)
    return replace(record, domain=domain, schedule=schedule, search=proved(record.search))


def _bootstrap_failed(record: DeviceRecord, event: ev.BootstrapFailed, _now: Moment) -> DeviceRecord:
    search, what = took(record.search), event.trouble
    if search.trying is not None:
        search = _refuse(search, search.trying.endpoint, what, distrusted=event.distrusted)
    schedule = _failed(record.schedule, what, event.due)
    return replace(record, domain=Domain(), schedule=schedule, search=search)


def _registrar_lost(record: DeviceRecord, event: ev.RegistrarLost, now: Moment) -> DeviceRecord:
    search = _refuse(record.search, record.domain.registrar, event.trouble, distrusted=event.distrusted)
    search = replace(search, waiting=(), at=None)  # the search is still to come
    domain = (
        replace(record.domain, doubted=now.now)
        if event.distrusted
        else replace(record.domain, sought=now.now)
    )
    return replace(record, domain=domain, search=search)


def _candidate_refused(record: DeviceRecord, event: ev.CandidateRefused, _now: Moment) -> DeviceRecord:
    search = took(record.search)
    where = search.trying.endpoint if search.trying is not None else ""
    return replace(record, search=_refuse(search, where, event.trouble, distrusted=event.distrusted))


def _registrar_found(record: DeviceRecord, event: ev.RegistrarFound, _now: Moment) -> DeviceRecord:
    """What waits for the registrar waits no longer if it is at another place than it was."""
    moved = replace(record, search=proved(took(record.search)))
    if event.endpoint == record.domain.registrar:
        return moved
    for entry in record.identities:
        moved = moved.with_identity(replace(entry, schedule=replace(entry.schedule, due=None)))
    return replace(moved, domain=replace(moved.domain, registrar=event.endpoint))


def _domain_lost(record: DeviceRecord, event: ev.DomainLost, _now: Moment) -> DeviceRecord:
    """A domain that vouches for the device and then does not serve it must not have the first turn again."""
    search, what = record.search, event.trouble
    if search.good is not None:
        search = _refuse(replace(search, good=None), search.good.endpoint, what, distrusted=True)
    schedule = _failed(record.schedule, what, event.due)
    return replace(record, domain=Domain(), schedule=schedule, search=search)


def _refuse(search: Search, where: str, what: Trouble, *, distrusted: bool) -> Search:
    return refused(search, Refusal(where, what.code, what.detail, what.at, distrusted))


def _interrupted(record: DeviceRecord, event: ev.BootstrapInterrupted, _now: Moment) -> DeviceRecord:
    return replace(record, schedule=_failed(record.schedule, event.trouble, event.due))


def _failed(schedule: Schedule, trouble: Trouble, due: datetime | None) -> Schedule:
    since = schedule.since or trouble.at
    return Schedule(due=due, attempts=schedule.attempts + 1, trouble=trouble, since=since)


_UNVOUCHED = frozenset({_D.NONE, _D.PROVISIONAL})

DOMAIN_TABLE: Final[tuple[DomainRow, ...]] = (
    DomainRow(
        frozenset({_D.NONE}),
        ev.BootstrapDue,
        None,
        _same,
        lambda event: (ev.SeekRegistrars() if event.seek else ev.PrepareAttempt(),),
    ),
    DomainRow(
        frozenset({_D.NONE}),
        ev.CandidatesFound,
        None,
        _found,
        lambda event: (ev.PrepareAttempt(),) if event.candidates else (),
    ),
    DomainRow(frozenset({_D.PROVISIONAL}), ev.BootstrapDue, None, _same, _always(ev.RequestVoucher())),
    DomainRow(frozenset({_D.VOUCHED}), ev.BootstrapDue, None, _same, _nothing),
    DomainRow(
        frozenset({_D.NONE}), ev.AttemptPrepared, _D.PROVISIONAL, _prepared, _always(ev.RequestVoucher())
    ),
    DomainRow(frozenset({_D.PROVISIONAL}), ev.VoucherPending, None, _voucher_pending, _nothing),
    DomainRow(frozenset({_D.PROVISIONAL}), ev.RegistrarMoved, _D.NONE, _moved, _always(ev.PrepareAttempt())),
    DomainRow(frozenset({_D.PROVISIONAL}), ev.VoucherAccepted, _D.VOUCHED, _vouched, _nothing),
    DomainRow(
        _UNVOUCHED,
        ev.BootstrapFailed,
        _D.NONE,
        _bootstrap_failed,
        lambda event: (ev.PrepareAttempt(),) if event.due is None else (),
    ),
    DomainRow(_UNVOUCHED, ev.BootstrapInterrupted, None, _interrupted, _nothing),
    DomainRow(frozenset({_D.VOUCHED}), ev.RegistrarLost, None, _registrar_lost, _always(ev.SeekRegistrars())),
    DomainRow(
        frozenset({_D.VOUCHED}),
        ev.CandidatesFound,
        None,
        _found,
        lambda event: (ev.MeetRegistrar(),) if event.candidates else (),
    ),
    DomainRow(
        frozenset({_D.VOUCHED}),
        ev.MeetingDue,
        None,
        _same,
        lambda event: (ev.SeekRegistrars() if event.seek else ev.MeetRegistrar(),),
    ),
    DomainRow(
        frozenset({_D.VOUCHED}),
        ev.CandidateRefused,
        None,
        _candidate_refused,
        lambda event: () if event.last else (ev.MeetRegistrar(),),
    ),
    DomainRow(frozenset({_D.VOUCHED}), ev.RegistrarFound, None, _registrar_found, _nothing),
    DomainRow(frozenset({_D.VOUCHED}), ev.DomainLost, _D.NONE, _domain_lost, _nothing),
)

# --- one identity ------------------------------------------------------------------------------------

_C = CredentialState
_T = TransactionState


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """From any pair of *credentials* and *transactions*; a target of None keeps that part's state."""

    credentials: frozenset[CredentialState]
    transactions: frozenset[TransactionState]
    event: type[ev.IdentityEvent]
    credential: CredentialState | None
    transaction: TransactionState | None
    apply: Callable[[Identity, Any, Moment], Identity]
    effects: Callable[[Any], Effects]


def _keep(identity: Identity, _event: object, _now: Moment) -> Identity:
    return identity


def _retire(identity: Identity, *keys: KeyRef) -> tuple[KeyRef, ...]:
    """The keys to destroy once nothing of *identity* names *keys* any more."""
    in_use = {
        NO_KEY,
        identity.credential.key,
        identity.transaction.key,
        identity.transaction.transport,
        identity.account,
    }
    return tuple(dict.fromkeys(k for k in (*identity.retiring, *keys) if k not in in_use))


def _lapse(identity: Identity, _event: object, _now: Moment) -> Identity:
    return replace(identity, credential=replace(identity.credential, state=_C.EXPIRED))


def _lapse_and_drop(identity: Identity, event: object, now: Moment) -> Identity:
    return _drop_transaction(_lapse(identity, event, now))


def _revive(identity: Identity, _event: object, _now: Moment) -> Identity:
    return replace(identity, credential=replace(identity.credential, state=_C.ACTIVE), schedule=Schedule())


def _revive_and_drop(identity: Identity, event: object, now: Moment) -> Identity:
    return _drop_transaction(_revive(identity, event, now))


def _revoke(identity: Identity, event: ev.CredentialRevoked, _now: Moment) -> Identity:
    schedule = Schedule(trouble=event.trouble, since=event.trouble.at)
    credential = replace(identity.credential, state=_C.REVOKED)
    return replace(identity, credential=credential, schedule=schedule, standing=Schedule())


def _revoke_and_drop(identity: Identity, event: ev.CredentialRevoked, now: Moment) -> Identity:
    return _drop_transaction(_revoke(identity, event, now))


def _standing(identity: Identity, event: ev.StandingKnown, _now: Moment) -> Identity:
    if event.trouble is None:
        return replace(identity, standing=Schedule(due=event.due))
    return replace(identity, standing=_failed(identity.standing, event.trouble, event.due))


def _too_early(identity: Identity, event: ev.IssuedTooEarly, _now: Moment) -> Identity:
    transaction = replace(
        identity.transaction, state=_T.REQUESTED, resume=b"", refusals=identity.transaction.refusals + 1
    )
    schedule = _failed(identity.schedule, event.trouble, event.due)
    return replace(identity, transaction=transaction, schedule=schedule)


def _hinted(identity: Identity, event: ev.HintHeard, _now: Moment) -> Identity:
    return replace(identity, hint=event.hint)


def _lose(identity: Identity, event: ev.CredentialLost, _now: Moment) -> Identity:
    changed = replace(
        identity,
        credential=Credential(generation=identity.credential.generation),
        schedule=replace(
            identity.schedule,
            due=None,
            trouble=event.trouble,
            since=identity.schedule.since or event.trouble.at,
        ),
    )
    return replace(changed, retiring=_retire(changed, identity.credential.key))


def _drop_transaction(identity: Identity) -> Identity:
    gone = identity.transaction
    free = replace(identity, transaction=Transaction())
    return replace(free, retiring=_retire(free, gone.key, gone.transport))


def _keyed(identity: Identity, event: ev.OfferTaken, now: Moment) -> Identity:
    transaction = Transaction(
        state=_T.KEYED,
        purpose=event.purpose,
        rung=event.rung,
        protocol=event.protocol,
        key=event.key,
        transport=event.transport,
        algorithm=event.algorithm,
        generation=event.generation,
        id=event.transaction,
        wishes=event.wishes,
        since=now.now,
    )
    changed = replace(
        identity,
        transaction=transaction,
        schedule=_progress(identity.schedule),
        ladder=arrived(identity.ladder, event.rung, event.passed, now.now),
        account=event.account or identity.account,
    )
    return replace(changed, retiring=_retire(changed))


def _requested(identity: Identity, event: ev.CsrMade, _now: Moment) -> Identity:
    return replace(identity, transaction=replace(identity.transaction, state=_T.REQUESTED, csr=event.csr))


def _pending(identity: Identity, event: ev.EnrollmentPending, now: Moment) -> Identity:
    transaction = replace(
        identity.transaction,
        state=_T.PENDING,
        resume=event.resume,
        deadline=identity.transaction.deadline or event.deadline,
    )
    # An answer ends a row of failures to get one, but not of those that come of the answers. The last
    # failure stays visible until the credential works.
    trouble = identity.schedule.trouble
    attempts = 0 if trouble is None or _heals(trouble) else identity.schedule.attempts
    since = now.now if trouble else None
    schedule = replace(identity.schedule, due=event.due, attempts=attempts, since=since)
    return replace(identity, transaction=transaction, schedule=schedule)


def _heals(trouble: Trouble) -> bool:
    """Whether *trouble* was only that the server did not answer, or had no time."""
    return trouble.code.startswith("transport.") or trouble.code.endswith(".unavailable")


def _staged(identity: Identity, event: ev.CertificateIssued, _now: Moment) -> Identity:
    transaction = replace(
        identity.transaction, state=_T.STAGED, chain=event.chain, resume=b"", deadline=None, refusals=0
    )
    return replace(identity, transaction=transaction, schedule=_progress(identity.schedule))


def _promoted(identity: Identity, _event: ev.CredentialProved, now: Moment) -> Identity:
    old = identity.credential.key
    new = identity.transaction
    credential = Credential(_C.ACTIVE, new.key, new.chain, new.generation, since=now.now)
    changed = replace(
        identity,
        credential=credential,
        transaction=Transaction(),
        schedule=Schedule(),
        deployment=Deployment(),
        ladder=replace(identity.ladder, barred=()),
        standing=Schedule(),
        hint=None,
    )
    return replace(changed, retiring=_retire(changed, old, new.transport))


def _refused(identity: Identity, event: ev.ProofRefused, _now: Moment) -> Identity:
    transaction = replace(identity.transaction, refusals=identity.transaction.refusals + 1)
    schedule = _failed(identity.schedule, event.trouble, event.due)
    return replace(identity, transaction=transaction, schedule=schedule)


def _settled(identity: Identity, _event: ev.StepBegun, _now: Moment) -> Identity:
    return replace(identity, schedule=Schedule())


def _placed(identity: Identity, event: ev.FilesPlaced, _now: Moment) -> Identity:
    placed = replace(identity, directory=event.directory)
    if event.digest == identity.deployment.placed and not event.anew:
        return placed
    return replace(placed, deployment=Deployment(placed=event.digest))


def _hook_ran(identity: Identity, event: ev.HookRan, _now: Moment) -> Identity:
    hooks = tuple(sorted({*identity.deployment.hooks, event.number}))
    return replace(identity, deployment=replace(identity.deployment, hooks=hooks))


def _hook_failed(identity: Identity, event: ev.HookFailed, _now: Moment) -> Identity:
    schedule = _failed(identity.deployment.schedule, event.trouble, event.due)
    return replace(identity, deployment=replace(identity.deployment, schedule=schedule))


def _deploy_failed(identity: Identity, event: ev.DeployFailed, _now: Moment) -> Identity:
    schedule = _failed(identity.deployment.schedule, event.trouble, event.due)
    deployment = replace(identity.deployment, tried=event.digest, schedule=schedule)
    return replace(identity, deployment=deployment)


def _hooks_ended(identity: Identity, event: ev.HooksEnded, _now: Moment) -> Identity:
    if not event.complete:
        return identity
    return replace(identity, deployment=replace(identity.deployment, complete=True, schedule=Schedule()))


def _retired(identity: Identity, _event: ev.KeysRetired, _now: Moment) -> Identity:
    return replace(identity, retiring=())


def _abandoned(identity: Identity, event: ev.EnrollmentFailed, _now: Moment) -> Identity:
    schedule = _failed(identity.schedule, event.trouble, event.due)
    return _drop_transaction(replace(identity, schedule=schedule))


def _dropped(identity: Identity, _event: object, now: Moment) -> Identity:
    return replace(_drop_transaction(identity), dropped=now.now, schedule=Schedule())


def _restored(identity: Identity, _event: object, _now: Moment) -> Identity:
    return replace(identity, dropped=None)


def _forgotten(identity: Identity, _event: object, _now: Moment) -> Identity:
    held = identity.credential.key
    changed = replace(
        identity, credential=Credential(), deployment=Deployment(), directory="", schedule=Schedule()
    )
    return replace(changed, retiring=_retire(changed, held))


def _nothing_left(identity: Identity) -> bool:
    """Whether a dropped identity has nothing that anybody would miss."""
    at_rest = identity.credential.state is _C.NONE and identity.transaction.state is _T.NONE
    return identity.dropped is not None and at_rest and not identity.retiring


def _forsaken(identity: Identity, event: ev.RungForsaken, now: Moment) -> Identity:
    since = identity.schedule.since or event.trouble.at
    schedule = replace(identity.schedule, due=None, attempts=0, trouble=event.trouble, since=since)
    ladder = barred(identity.ladder, event.rung, event.trouble.code, now.now)
    return _drop_transaction(replace(identity, schedule=schedule, ladder=ladder))


def _postponed(identity: Identity, event: ev.AttemptFailed, _now: Moment) -> Identity:
    return replace(identity, schedule=_failed(identity.schedule, event.trouble, event.due))


def _progress(schedule: Schedule) -> Schedule:
    """The due time is used up; the last trouble and the count stay visible until the credential works."""
    return replace(schedule, due=None)


def _discover_initial(_event: object) -> Effects:
    return (ev.Discover(Purpose.INITIAL),)


_ANY_C = frozenset(_C)
_WITHOUT = frozenset({_C.NONE, _C.EXPIRED, _C.REVOKED})
_ACTIVE = frozenset({_C.ACTIVE})
_EXPIRED = frozenset({_C.EXPIRED})
_ANY_T = frozenset(_T)
_IDLE = frozenset({_T.NONE})
_ASKING = frozenset({_T.REQUESTED, _T.PENDING})
_STAGED = frozenset({_T.STAGED})

IDENTITY_TABLE: Final[tuple[IdentityRow, ...]] = (
    IdentityRow(_WITHOUT, _IDLE, ev.StepBegun, None, None, _keep, _discover_initial),
    IdentityRow(_ACTIVE, _IDLE, ev.StepBegun, None, None, _settled, _nothing),
    IdentityRow(_ANY_C, frozenset({_T.KEYED}), ev.StepBegun, None, None, _keep, _always(ev.MakeRequest())),
    IdentityRow(_ANY_C, frozenset({_T.REQUESTED}), ev.StepBegun, None, None, _keep, _always(ev.Enroll())),
    IdentityRow(_ANY_C, frozenset({_T.PENDING}), ev.StepBegun, None, None, _keep, _always(ev.Resume())),
    IdentityRow(_ANY_C, _STAGED, ev.StepBegun, None, None, _keep, _always(ev.ProveCredential())),
    IdentityRow(
        _ACTIVE, _IDLE, ev.RenewalDue, None, None, _keep, lambda event: (ev.Discover(event.purpose),)
    ),
    # Where the server renews after the end, the credential that has ended still names us.
    IdentityRow(
        _EXPIRED, _IDLE, ev.RenewalDue, None, None, _keep, lambda event: (ev.Discover(event.purpose),)
    ),
    # A renewal authenticates with the credential that has just lapsed, so it starts again, as a rule from the
    # IDevID; a certificate that already came is as good as ever.
    IdentityRow(
        _ACTIVE,
        frozenset(_T) - _STAGED,
        ev.CredentialLapsed,
        _C.EXPIRED,
        _T.NONE,
        _lapse_and_drop,
        lambda event: (ev.RetireKeys(), ev.Discover(event.renew or Purpose.INITIAL)),
    ),
    IdentityRow(
        _ACTIVE, _STAGED, ev.CredentialLapsed, _C.EXPIRED, None, _lapse, _always(ev.ProveCredential())
    ),
    IdentityRow(
        _EXPIRED,
        _ANY_T - _STAGED,
        ev.CredentialRevived,
        _C.ACTIVE,
        _T.NONE,
        _revive_and_drop,
        _always(ev.RetireKeys()),
    ),
    IdentityRow(
        _EXPIRED, _STAGED, ev.CredentialRevived, _C.ACTIVE, None, _revive, _always(ev.ProveCredential())
    ),
    IdentityRow(_ACTIVE, _IDLE, ev.HintDue, None, None, _keep, _always(ev.AskHint())),
    IdentityRow(_ACTIVE, _IDLE, ev.HintHeard, None, None, _hinted, _nothing),
    IdentityRow(_ACTIVE, _ANY_T, ev.StandingDue, None, None, _keep, _always(ev.CheckStanding())),
    IdentityRow(_ACTIVE, _ANY_T, ev.StandingKnown, None, None, _standing, _nothing),
    # Whoever has the key of a revoked certificate may be somebody else: it vouches for nothing any more.
    IdentityRow(
        _ACTIVE,
        _ANY_T - _STAGED,
        ev.CredentialRevoked,
        _C.REVOKED,
        _T.NONE,
        _revoke_and_drop,
        _always(ev.RetireKeys(), ev.Discover(Purpose.INITIAL)),
    ),
    IdentityRow(
        _ACTIVE, _STAGED, ev.CredentialRevoked, _C.REVOKED, None, _revoke, _always(ev.ProveCredential())
    ),
    IdentityRow(
        _ACTIVE,
        _IDLE,
        ev.CredentialLost,
        _C.NONE,
        None,
        _lose,
        _always(ev.RetireKeys(), ev.Discover(Purpose.INITIAL)),
    ),
    IdentityRow(_ANY_C, _IDLE, ev.OfferTaken, None, _T.KEYED, _keyed, _always(ev.MakeRequest())),
    IdentityRow(
        _ANY_C,
        frozenset({_T.KEYED, _T.REQUESTED, _T.PENDING}),
        ev.CsrMade,
        None,
        _T.REQUESTED,
        _requested,
        _always(ev.Enroll()),
    ),
    IdentityRow(
        _ANY_C,
        frozenset({_T.REQUESTED}),
        ev.AnchorsChanged,
        None,
        None,
        _keep,
        _always(ev.Enroll(refreshed=True)),
    ),
    IdentityRow(
        _ANY_C,
        frozenset({_T.PENDING}),
        ev.AnchorsChanged,
        None,
        None,
        _keep,
        _always(ev.Resume(refreshed=True)),
    ),
    IdentityRow(_ANY_C, _ASKING, ev.EnrollmentPending, None, _T.PENDING, _pending, _nothing),
    IdentityRow(
        _ANY_C, _ASKING, ev.CertificateIssued, None, _T.STAGED, _staged, _always(ev.ProveCredential())
    ),
    IdentityRow(_ANY_C, _ASKING, ev.IssuedTooEarly, None, _T.REQUESTED, _too_early, _nothing),
    IdentityRow(_ANY_C, _STAGED, ev.CredentialProved, _C.ACTIVE, _T.NONE, _promoted, _always(ev.Deploy())),
    IdentityRow(_ANY_C, _STAGED, ev.ProofRefused, None, None, _refused, _nothing),
    # A deployment goes beside whatever is under way.
    IdentityRow(_ACTIVE, _ANY_T, ev.DeployDue, None, None, _keep, _always(ev.Deploy())),
    IdentityRow(_ACTIVE, _ANY_T, ev.FilesPlaced, None, None, _placed, _always(ev.RunHook(0))),
    IdentityRow(
        _ACTIVE, _ANY_T, ev.HookRan, None, None, _hook_ran, lambda event: (ev.RunHook(event.number + 1),)
    ),
    IdentityRow(
        _ACTIVE,
        _ANY_T,
        ev.HookFailed,
        None,
        None,
        _hook_failed,
        lambda event: (ev.RunHook(event.number + 1),),
    ),
    # Not before: other programs still use the old key until then.
    IdentityRow(
        _ACTIVE,
        _ANY_T,
        ev.HooksEnded,
        None,
        None,
        _hooks_ended,
        lambda event: (ev.RetireKeys(),) if event.complete else (),
    ),
    IdentityRow(_ACTIVE, _ANY_T, ev.DeployFailed, None, None, _deploy_failed, _nothing),
    IdentityRow(_ANY_C, frozenset(_T), ev.KeysRetired, None, None, _retired, _nothing),
    IdentityRow(
        _ANY_C,
        frozenset(_T) - _IDLE,
        ev.EnrollmentFailed,
        None,
        _T.NONE,
        _abandoned,
        _always(ev.RetireKeys()),
    ),
    IdentityRow(
        _ANY_C,
        frozenset({_T.KEYED, _T.REQUESTED, _T.PENDING}),
        ev.RungForsaken,
        None,
        _T.NONE,
        _forsaken,
        lambda event: (ev.RetireKeys(), ev.Discover(event.purpose)),
    ),
    IdentityRow(_ANY_C, frozenset(_T), ev.IdentityDropped, None, _T.NONE, _dropped, _always(ev.RetireKeys())),
    IdentityRow(_ANY_C, _IDLE, ev.IdentityRestored, None, None, _restored, _nothing),
    IdentityRow(_ANY_C, _IDLE, ev.IdentityForgotten, _C.NONE, None, _forgotten, _always(ev.RetireKeys())),
    IdentityRow(_ANY_C, frozenset(_T), ev.AttemptFailed, None, None, _postponed, _nothing),
)


MOST_RETIRED: Final = 64
"""How many retired anchors are remembered, the newest of them."""


def decide(
    record: DeviceRecord, event: ev.DomainEvent | ev.IdentityEvent, now: Moment, *, identity: str = ""
) -> tuple[DeviceRecord, Effects]:
    """What *event* makes of *record*, and what to do next, in order.

    *identity* names the entry that an identity event is about. The device's own time floor follows a trusted
    *now*, but only when the record changes anyway, so that idling writes nothing.
    Raises LocalProtocolError for a pair of state and event that the tables do not name.
    """
    changed, effects = (
        _decide_identity(record, event, now, identity)
        if isinstance(event, ev.IdentityEvent)
        else _decide_domain(record, event, now)
    )
    if changed != record and now.trusted:
        changed = replace(changed, floor=now.now)
    return changed, effects


def _decide_domain(record: DeviceRecord, event: ev.DomainEvent, now: Moment) -> tuple[DeviceRecord, Effects]:
    state = record.domain.state
    for row in DOMAIN_TABLE:
        if isinstance(event, row.event) and state in row.sources:
            changed = row.apply(record, event, now)
            _reached(changed.domain.state, row.target or state, event)
            return changed, row.effects(event)
    why = why_not_domain(type(event), state) or "no row of the table says what it would mean"
    raise LocalProtocolError(
        "machine.impossible", f"{type(event).__name__} while the domain is {state.value}: {why}"
    )


def _decide_identity(
    record: DeviceRecord, event: ev.IdentityEvent, now: Moment, name: str
) -> tuple[DeviceRecord, Effects]:
    entry = record.identity(name)
    credential, transaction = entry.credential.state, entry.transaction.state
    for row in IDENTITY_TABLE:
        if isinstance(event, row.event) and credential in row.credentials and transaction in row.transactions:
            changed = row.apply(entry, event, now)
            _reached(changed.credential.state, row.credential or credential, event)
            _reached(changed.transaction.state, row.transaction or transaction, event)
            result = record if changed == entry else record.with_identity(changed)
            result = result.without_identity(name) if _nothing_left(changed) else result
            effects = tuple(e for e in row.effects(event) if changed.retiring or e != ev.RetireKeys())
            return _with_domain_news(result, event), effects
    why = why_not(type(event), credential, transaction) or "no row of the table says what it would mean"
    raise LocalProtocolError(
        "machine.impossible",
        f"{type(event).__name__} while {name} is {credential.value}/{transaction.value}: {why}",
    )


def _with_domain_news(record: DeviceRecord, event: ev.IdentityEvent) -> DeviceRecord:
    """An offer also brings anchors, an issued certificate also proves that a time has passed, one that works
    that this is our domain, and a key in which hardware we live."""
    if isinstance(event, ev.OfferTaken | ev.AnchorsChanged):
        before = tuple(r for r in record.domain.retired if r not in event.retired)
        domain = replace(
            record.domain,
            anchors=event.anchors,
            intermediates=event.intermediates,
            retired=(*before, *event.retired)[-MOST_RETIRED:],
        )
        return replace(record, domain=domain)
    if isinstance(event, ev.CertificateIssued):
        # Not the device's own floor: that may come from a clock that was trusted and wrong.
        return replace(record, domain=replace(record.domain, floor=max(record.proven, event.seen)))
    if isinstance(event, ev.CredentialProved):
        return replace(record, schedule=Schedule())
    if isinstance(event, ev.CsrMade):
        return replace(record, home=event.home or record.home)
    return record


def _reached(actual: object, expected: object, event: object) -> None:
    if actual is not expected:
        raise LocalProtocolError(
            "machine.table", f"{type(event).__name__} led to {actual}, the table says {expected}"
        )
