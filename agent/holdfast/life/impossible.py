"""What cannot happen to a device, and why: every pair of state and event that the tables do not name.

Written down beside the tables of ``machine.py`` and not derived from them, so that a forgotten row fails a
test instead of hiding. Meeting one of these is our own bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast.life import events as ev
from holdfast.life.record import CredentialState, DomainState, TransactionState

_C = CredentialState
_T = TransactionState
_D = DomainState
_ANY_C: Final = frozenset(_C)
_ANY_T: Final = frozenset(_T)
_NOT_ACTIVE: Final = _ANY_C - {_C.ACTIVE}
_UNDER_WAY: Final = _ANY_T - {_T.NONE}
_UNASKED: Final = frozenset({_T.NONE, _T.KEYED})


@dataclass(frozen=True, slots=True)
class Never:
    """*event* does not happen to an identity in any pair of *credentials* and *transactions*."""

    event: type[ev.IdentityEvent]
    credentials: frozenset[CredentialState]
    transactions: frozenset[TransactionState]
    why: str


@dataclass(frozen=True, slots=True)
class DomainNever:
    """*event* does not happen to a domain in any of *states*."""

    event: type[ev.DomainEvent]
    states: frozenset[DomainState]
    why: str


def _for_each(
    events: tuple[type[ev.IdentityEvent], ...],
    credentials: frozenset[CredentialState],
    transactions: frozenset[TransactionState],
    why: str,
) -> tuple[Never, ...]:
    return tuple(Never(event, credentials, transactions, why) for event in events)


IDENTITY_NEVER: Final[tuple[Never, ...]] = (
    Never(ev.RenewalDue, _ANY_C, _UNDER_WAY, "what is under way comes first; a renewal begins at rest"),
    Never(ev.RenewalDue, frozenset({_C.NONE}), _ANY_T, "there is nothing to renew"),
    Never(ev.RenewalDue, frozenset({_C.REVOKED}), _ANY_T, "what was revoked vouches for nothing any more"),
    Never(ev.CredentialLapsed, _NOT_ACTIVE, _ANY_T, "only an active credential has a life that can end"),
    Never(ev.CredentialRevived, _ANY_C - {_C.EXPIRED}, _ANY_T, "only what was taken as ended can be revived"),
    *_for_each(
        (ev.StandingDue, ev.StandingKnown, ev.CredentialRevoked),
        _NOT_ACTIVE,
        _ANY_T,
        "nobody is asked about a credential that is not used",
    ),
    *_for_each((ev.HintDue, ev.HintHeard), _NOT_ACTIVE, _ANY_T, "there is nothing that would be renewed"),
    *_for_each((ev.HintDue, ev.HintHeard), _ANY_C, _UNDER_WAY, "a renewal is under way already"),
    Never(ev.CredentialLost, _NOT_ACTIVE, _ANY_T, "no active credential has a key that could be lost"),
    Never(ev.CredentialLost, _ANY_C, _UNDER_WAY, "its key is asked for at rest; else the transaction fails"),
    Never(ev.OfferTaken, _ANY_C, _UNDER_WAY, "the transaction has its offer"),
    Never(ev.CsrMade, _ANY_C, frozenset({_T.NONE}), "no key was planned"),
    Never(ev.CsrMade, _ANY_C, frozenset({_T.STAGED}), "the request was answered"),
    *_for_each(
        (ev.AnchorsChanged, ev.EnrollmentPending, ev.CertificateIssued, ev.IssuedTooEarly),
        _ANY_C,
        _UNASKED,
        "nothing was asked that could be answered",
    ),
    *_for_each(
        (ev.AnchorsChanged, ev.EnrollmentPending, ev.CertificateIssued, ev.IssuedTooEarly),
        _ANY_C,
        frozenset({_T.STAGED}),
        "the request was answered",
    ),
    *_for_each(
        (ev.CredentialProved, ev.ProofRefused),
        _ANY_C,
        _ANY_T - {_T.STAGED},
        "no certificate waits for its proof",
    ),
    *_for_each(
        (ev.DeployDue, ev.FilesPlaced, ev.HookRan, ev.HookFailed, ev.HooksEnded, ev.DeployFailed),
        _NOT_ACTIVE,
        _ANY_T,
        "only an active credential is deployed",
    ),
    Never(ev.EnrollmentFailed, _ANY_C, frozenset({_T.NONE}), "nothing is under way that could fail for good"),
    Never(ev.RungForsaken, _ANY_C, frozenset({_T.NONE}), "no transaction is on any rung"),
    Never(ev.RungForsaken, _ANY_C, frozenset({_T.STAGED}), "the rung has given its certificate"),
    *_for_each(
        (ev.IdentityRestored, ev.IdentityForgotten),
        _ANY_C,
        _UNDER_WAY,
        "what a dropped identity had under way ended when it was dropped",
    ),
)

DOMAIN_NEVER: Final[tuple[DomainNever, ...]] = (
    DomainNever(ev.AttemptPrepared, frozenset({_D.PROVISIONAL}), "an attempt has its request already"),
    DomainNever(ev.AttemptPrepared, frozenset({_D.VOUCHED}), "the device belongs to somebody"),
    *(
        DomainNever(event, frozenset({_D.NONE}), "no registrar was asked")
        for event in (ev.VoucherPending, ev.RegistrarMoved, ev.VoucherAccepted)
    ),
    *(
        DomainNever(event, frozenset({_D.VOUCHED}), "the device belongs to somebody")
        for event in (
            ev.VoucherPending,
            ev.RegistrarMoved,
            ev.VoucherAccepted,
            ev.BootstrapFailed,
            ev.BootstrapInterrupted,
        )
    ),
    DomainNever(ev.CandidatesFound, frozenset({_D.PROVISIONAL}), "one of them is being asked"),
    *(
        DomainNever(
            event, frozenset({_D.NONE, _D.PROVISIONAL}), "no domain is there whose registrar it could be"
        )
        for event in (ev.RegistrarLost, ev.MeetingDue, ev.CandidateRefused, ev.RegistrarFound)
    ),
    DomainNever(ev.DomainLost, frozenset({_D.NONE, _D.PROVISIONAL}), "there is no domain to lose"),
)


def why_not(
    event: type[ev.IdentityEvent], credential: CredentialState, transaction: TransactionState
) -> str | None:
    """Why *event* cannot happen in that pair of states; None if nothing says that it cannot."""
    return next(
        (
            n.why
            for n in IDENTITY_NEVER
            if n.event is event and credential in n.credentials and transaction in n.transactions
        ),
        None,
    )


def why_not_domain(event: type[ev.DomainEvent], state: DomainState) -> str | None:
    """Why *event* cannot happen in that state of the domain; None if nothing says that it cannot."""
    return next((n.why for n in DOMAIN_NEVER if n.event is event and state in n.states), None)
