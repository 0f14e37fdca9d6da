"""What is due, and when to come back: pure questions to a record."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from holdfast.host.config import IdentitySettings
from holdfast.life import events as ev
from holdfast.life.record import (
    CredentialState,
    DeviceRecord,
    DomainState,
    Identity,
    Schedule,
    TransactionState,
)
from holdfast.life.renewal import Age, age, hinted_moment, later, renewal_moment
from holdfast.wire.model import ClockState, Moment, Purpose

FARTHEST: Final = timedelta(days=7)
"""No wait is longer than this: a due time beyond it was written under a wrong clock."""


def waiting(schedule: Schedule, now: Moment, *, hasten: bool = False, farthest: timedelta = FARTHEST) -> bool:
    """Whether *schedule* says to do nothing yet. *hasten*: not for want of a network any more. *farthest*:
    how long a wait may be at all.

    While the clock is unknown the time stands still at its floor, and no wait would ever end: whoever calls
    has waited (``holdfast run`` does, on a clock that needs no date). A due time that belongs to a failure of
    the future was written under a clock that ran ahead and was set back since.
    """
    if schedule.due is None or now.state is ClockState.UNKNOWN:
        return False
    if schedule.trouble is not None and schedule.trouble.at > now.now:
        return False
    if hasten and schedule.trouble is not None and schedule.trouble.code.startswith("transport."):
        return False
    return now.now < schedule.due <= later(now.now, farthest)


def registrar_in_turn(record: DeviceRecord, registrars: tuple[str, ...]) -> str:
    """Whom to ask now: where a registrar sent us, else the next of the list."""
    if record.domain.redirected:
        return record.domain.registrar
    return registrars[record.schedule.attempts % len(registrars)]


def opening(
    entry: Identity, settings: IdentitySettings, now: Moment, *, wanted: bool, hasten: bool = False
) -> ev.IdentityEvent | None:
    """What a step begins with for this identity, or None while it waits.

    *wanted*: an operator wants it renewed now. A credential whose life has ended never waits.
    """
    if entry.credential.state is not CredentialState.ACTIVE:
        waits = waiting(entry.schedule, now, hasten=hasten) and not wanted
        return None if waits else _opening_without(entry, settings)
    stage = age(leaf_of(entry).not_valid_after_utc, turn_of(entry, settings, now), now)
    if stage is Age.LAPSED:
        return ev.CredentialLapsed(_purpose(settings) if settings.renew.after_expiry else None)
    if waiting(entry.schedule, now, hasten=hasten) and not wanted:
        return None
    if (stage is Age.DUE or wanted) and entry.transaction.state is TransactionState.NONE:
        return ev.RenewalDue(_purpose(settings))
    return ev.StepBegun()


def _opening_without(entry: Identity, settings: IdentitySettings) -> ev.IdentityEvent:
    """For an identity without a usable credential. One that has ended is shown in turn with the IDevID where
    the configuration hopes that the server renews after the end."""
    expired = entry.credential.state is CredentialState.EXPIRED
    if (
        expired
        and settings.renew.after_expiry
        and entry.transaction.state is TransactionState.NONE
        and entry.schedule.attempts % 2 == 0
    ):
        return ev.RenewalDue(_purpose(settings))
    return ev.StepBegun()


def _purpose(settings: IdentitySettings) -> Purpose:
    return Purpose.RENEW if settings.renew.same_key else Purpose.REKEY


def lives_again(entry: Identity, now: Moment) -> bool:
    """Whether a clock that was wrong had ended the credential: a trusted one is inside its life."""
    if entry.credential.state is not CredentialState.EXPIRED or not entry.credential.chain or not now.trusted:
        return False
    leaf = leaf_of(entry)
    return leaf.not_valid_before_utc <= now.now <= leaf.not_valid_after_utc


def server_wait(
    record: DeviceRecord, identities: tuple[IdentitySettings, ...], now: Moment
) -> timedelta | None:
    """How long until the first server that asked us for patience may be asked again; None if none did."""
    dues = [
        entry.schedule.due
        for entry in (record.identity(s.name) for s in identities)
        if entry.transaction.state is TransactionState.PENDING and entry.schedule.due is not None
    ]
    if record.domain.state is DomainState.PROVISIONAL and record.domain.polls and record.schedule.due:
        dues.append(record.schedule.due)
    return max(min(dues) - now.now, timedelta(0)) if dues else None


def next_due(record: DeviceRecord, identities: tuple[IdentitySettings, ...], now: Moment) -> datetime:
    """When the next step is due; now if something is left to do at once."""
    if record.domain.state is not DomainState.VOUCHED:
        return record.schedule.due or now.now
    return min(_identity_due(record.identity(s.name), s, now) for s in identities)


def _identity_due(entry: Identity, settings: IdentitySettings, now: Moment) -> datetime:
    due = _credential_due(entry, settings, now)
    if entry.credential.state is not CredentialState.ACTIVE:
        return due
    others = (
        None if entry.deployment.complete else entry.deployment.schedule.due,
        entry.standing.due,
        entry.hint.ask if entry.hint is not None and settings.renew.ask_server else None,
    )
    return min((due, *(d for d in others if d is not None)))


def _credential_due(entry: Identity, settings: IdentitySettings, now: Moment) -> datetime:
    if entry.schedule.due is not None:
        return entry.schedule.due
    at_rest = entry.transaction.state is TransactionState.NONE
    if entry.credential.state is not CredentialState.ACTIVE or not at_rest:
        return now.now
    return turn_of(entry, settings, now)


def turn_of(entry: Identity, settings: IdentitySettings, now: Moment) -> datetime:
    """From when on the credential is renewed, by our clock; earlier if the CA wishes it so, never later."""
    renew, (begin, end), seed = settings.renew, life_of(entry, now), seed_of(entry)
    own = renewal_moment(begin, end, renew.fraction, seed, renew.before_end)
    hint = entry.hint
    if hint is None or hint.start is None or hint.end is None:
        return own
    return min(own, hinted_moment(hint.start, hint.end, begin, end, seed))


def hint_due(entry: Identity, settings: IdentitySettings, now: Moment) -> bool:
    """Whether the CA is asked now when it would like to see the credential renewed."""
    at_rest = entry.transaction.state is TransactionState.NONE
    if not settings.renew.ask_server or entry.credential.state is not CredentialState.ACTIVE or not at_rest:
        return False
    return entry.hint is None or not waiting(Schedule(entry.hint.ask), now)


def remaining_life(entry: Identity, now: Moment) -> timedelta | None:
    """What is left of the credential's life; None without one, or if a clock that nobody vouches for says
    that it is over."""
    if entry.credential.state is not CredentialState.ACTIVE:
        return None
    _, end = life_of(entry, now)
    return end - now.now if now.now < end else None


def leaf_of(entry: Identity) -> x509.Certificate:
    """The end-entity certificate that the identity holds."""
    return x509.load_der_x509_certificate(entry.credential.chain[0])


def life_of(entry: Identity, now: Moment) -> tuple[datetime, datetime]:
    """From when to when the credential serves, by our clock.

    It begins when we had it: its first date may be long before. A clock that nobody vouches for may be
    decades ahead, and then every new certificate would be due, or over, as soon as it came: its life lasts as
    long as its dates say, counted from when we had it. A clock that was set back since tells nothing of that.
    """
    leaf, since = leaf_of(entry), entry.credential.since
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if since is None or since > now.now:
        return begin, end
    if not now.trusted:
        return since, later(since, end - begin)
    return (max(begin, since) if since < end else begin), end


def seed_of(entry: Identity) -> bytes:
    """What the jitter of renewals depends on: the certificate's subject and the entry's name."""
    return leaf_of(entry).subject.public_bytes() + entry.name.encode()
