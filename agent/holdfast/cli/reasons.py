"""Why a device is in the state that it is in: pure sentences from a record, its settings and a moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from holdfast.cli.advice import advice
from holdfast.cli.sought import being_sought
from holdfast.cli.words import shown, timestamp, when
from holdfast.host.config import IdentitySettings, Settings
from holdfast.life.ladder import ANSWERS
from holdfast.life.record import (
    CredentialState,
    Deployment,
    DeviceRecord,
    DomainState,
    Identity,
    Schedule,
    TransactionState,
    Trouble,
)
from holdfast.life.search import next_up
from holdfast.wire.errors import Retry
from holdfast.wire.model import ClockState, Moment, Purpose
from holdfast.worker.agenda import leaf_of, next_due

DOMAIN: Final = "domain"
_MOST_REFUSALS_TOLD: Final = 8
PURPOSES: Final = {
    Purpose.INITIAL: "its first certificate",
    Purpose.RENEW: "a new certificate for the same key",
    Purpose.REKEY: "a new certificate for a new key",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """About one part: the domain, or the identity *part*.

    ``doing`` is a clause without a subject ("waits for ..."); ``next_attempt`` is None if another part must
    come first; ``because`` says why just then; ``advice`` is empty where nobody need do anything; ``stuck``
    says that it waits for a person; ``ladder`` says which of several protocols is used, and why; ``found``
    says whom a search for registrars found, and why they were refused, or that ours is sought elsewhere.
    """

    part: str
    doing: str
    since: datetime | None
    trouble: Trouble | None
    attempts: int
    next_attempt: datetime | None
    because: str
    advice: str
    stuck: bool
    ladder: str = ""
    found: str = ""

    def values(self) -> dict[str, Any]:
        """Ready for JSON."""
        trouble = self.trouble
        return {
            "part": self.part,
            "doing": self.doing,
            "since": timestamp(self.since),
            "error": None
            if trouble is None
            else {
                "code": trouble.code,
                "detail": trouble.detail,
                "clause": trouble.clause,
                "retry": trouble.retry,
                "at": timestamp(trouble.at),
            },
            "failed_attempts": self.attempts,
            "next_attempt": timestamp(self.next_attempt),
            "because": self.because,
            "advice": self.advice,
            "stuck": self.stuck,
            "ladder": self.ladder,
            "found": self.found,
        }

    def paragraph(self, now: datetime) -> str:
        """All of it in a few sentences, for a person."""
        said = [f"{self.part} {self.doing}"]
        if self.since is not None:
            said[0] += f", since {when(self.since, now)}"
        said[0] += "."
        if self.trouble is not None:
            clause = f" ({self.trouble.clause})" if self.trouble.clause else ""
            detail = f": {self.trouble.detail}" if self.trouble.detail else ""
            said.append(
                f"The last error was {self.trouble.code}{detail}{clause}, at {timestamp(self.trouble.at)}."
            )
        if self.attempts:
            said.append(
                "One attempt has failed."
                if self.attempts == 1
                else f"{self.attempts} attempts in a row have failed."
            )
        if self.next_attempt is None:
            said.append(f"Its next attempt comes later: {self.because}.")
        elif self.next_attempt <= now:
            said.append(f"The next attempt is due now: {self.because}.")
        else:
            said.append(f"The next attempt is at {when(self.next_attempt, now)}: {self.because}.")
        said += [more for more in (self.ladder, self.found) if more]
        if self.advice:
            said.append(f"What you can do: {self.advice}")
        return shown(" ".join(said))


def explain(
    record: DeviceRecord, settings: Settings, identities: tuple[IdentitySettings, ...], now: Moment
) -> tuple[Reason, ...]:
    """The domain first, while the device belongs to nobody; then each of *identities*."""
    told = [] if record.domain.state is DomainState.VOUCHED else [_about_domain(record, settings, now)]
    for identity in identities:
        search = being_sought(record, settings, (record.identity(identity.name).schedule,))
        found = "" if search is None else search.sentence()
        told.append(replace(_about(record, identity, now), found=found))
        deployment = record.identity(identity.name).deployment
        if deployment.schedule.trouble is not None and not deployment.complete:
            told.append(_about_deployment(identity.name, deployment, now))
    return tuple(told)


# --- the domain --------------------------------------------------------------------------------------


def _about_domain(record: DeviceRecord, settings: Settings, now: Moment) -> Reason:
    domain, schedule = record.domain, record.schedule
    if domain.state is DomainState.PROVISIONAL and domain.polls:
        doing = f"waits for {domain.registrar}, which asked for patience with the voucher"
    elif domain.state is DomainState.PROVISIONAL:
        doing = f"asks {domain.registrar} for a voucher that says whose device this is"
    elif domain.redirected:
        doing = f"looks for its owner at {domain.registrar}, where another registrar sent it"
    else:
        doing = f"looks for its owner {_where(record, settings)}"
    due = next_due(record, settings.identities, now)
    reason = _reason(DOMAIN, doing, schedule, due=due, now=now, because=_domain_why(record))
    return replace(reason, found=_candidates(record, settings))


def _where(record: DeviceRecord, settings: Settings) -> str:
    if settings.discovery is None:
        return f"at {' or '.join(settings.registrars)}"
    search = record.search
    if next_up(search) is not None:
        waiting = [each for each in (search.trying, *search.waiting) if each is not None]
        return f"at {' or '.join(each.endpoint for each in waiting)}"
    return f"on the network ({', '.join(source.value for source in settings.discovery.order)})"


def _candidates(record: DeviceRecord, settings: Settings) -> str:
    """Who was found and why it was not taken, and which sources brought nobody."""
    if settings.discovery is None:
        return ""
    refusals = (f"{r.endpoint}: {r.code}" for r in record.search.refusals[:_MOST_REFUSALS_TOLD])
    said = []
    if refused := "; ".join(refusals):
        said.append(f"Found and refused: {refused}.")
    if record.search.silent:
        said.append(f"Nobody was found by {'; '.join(record.search.silent)}.")
    return " ".join(said)


def _domain_why(record: DeviceRecord) -> str:
    if record.schedule.due is None:
        return "nothing stands in the way of it"
    if (
        record.domain.state is DomainState.PROVISIONAL
        and record.domain.polls
        and not record.schedule.attempts
    ):
        return "the registrar asked for that much patience (Retry-After)"
    return _backoff(record.schedule, living=False)


# --- an identity -------------------------------------------------------------------------------------


def _about(record: DeviceRecord, settings: IdentitySettings, now: Moment) -> Reason:
    entry = record.identity(settings.name)
    doing = _doing(entry)
    if record.domain.state is not DomainState.VOUCHED:
        held = "the device must know its owner first"
        return _reason(settings.name, doing, entry.schedule, due=None, now=now, because=held)
    due = next_due(record, (settings,), now)
    since = entry.transaction.since or entry.schedule.since or entry.credential.since
    why = _identity_why(entry, settings, due, now)
    reason = _reason(settings.name, doing, entry.schedule, due=due, now=now, because=why, since=since)
    return replace(reason, ladder=_ladder(entry, settings))


def _ladder(entry: Identity, settings: IdentitySettings) -> str:
    """Which rung of several is in use, and why; nothing where there never was a choice."""
    rung, moves = entry.ladder.rung, entry.ladder.moves
    if len(settings.rungs) < 2 and not moves:
        return ""
    order = f"New requests try {', then '.join(settings.rungs)}"
    if not rung:
        return f"{order}; none has answered yet."
    last = next((m for m in reversed(moves) if m.target == rung), None)
    if last is None:
        return f"{order}; {rung} answered last."
    why = "it answers again" if last.code == ANSWERS else f"{last.source} did not serve ({last.code})"
    return f"{order}; it uses {rung} since {timestamp(last.at)}, because {why}."


def _about_deployment(name: str, deployment: Deployment, now: Moment) -> Reason:
    doing = (
        "tells other programs of their new files"
        if deployment.placed
        else "puts the files in place for other programs"
    )
    due = deployment.schedule.due
    why = _backoff(deployment.schedule, living=False)
    return _reason(f"{name} deployment", doing, deployment.schedule, due=due, now=now, because=why)


def _doing(entry: Identity) -> str:
    transaction = entry.transaction
    wanted = PURPOSES[transaction.purpose]
    match transaction.state:
        case TransactionState.KEYED:
            return f"makes the key {transaction.key} to ask for {wanted}"
        case TransactionState.REQUESTED:
            return f"asks for {wanted} by {transaction.rung}"
        case TransactionState.PENDING:
            return f"waits for the CA, which asked for patience with {wanted}"
        case TransactionState.STAGED:
            return f"has got {wanted}, which must first work in a real connection"
    match entry.credential.state:
        case CredentialState.ACTIVE:
            end = timestamp(leaf_of(entry).not_valid_after_utc)
            return f"holds a certificate that is valid until {end}"
        case CredentialState.EXPIRED:
            end = timestamp(leaf_of(entry).not_valid_after_utc) if entry.credential.chain else "some time ago"
            return f"asks for a certificate, because its last one ended at {end}"
        case CredentialState.REVOKED:
            return "asks for a certificate, because its last one was revoked"
        case CredentialState.NONE:
            return (
                "asks for its first certificate"
                if not entry.credential.generation
                else ("asks for a certificate, because the key of its last one is gone")
            )


def _identity_why(entry: Identity, settings: IdentitySettings, due: datetime, now: Moment) -> str:
    living = entry.credential.state is CredentialState.ACTIVE
    waits = entry.schedule.due is not None
    if waits and entry.transaction.state is TransactionState.PENDING and not entry.schedule.attempts:
        return "the CA asked for that much patience (Retry-After)"
    if waits:
        return _backoff(entry.schedule, living=living)
    if living and entry.transaction.state is TransactionState.NONE and due > now.now:
        return (
            f"that is its turn to renew; turns come about every {settings.renew.fraction:.0%} of a life, well"
            " before its end, and differ from device to device"
        )
    if living and entry.transaction.state is TransactionState.NONE:
        return "its turn to renew has come"
    return "nothing stands in the way of it"


def _backoff(schedule: Schedule, *, living: bool) -> str:
    if schedule.trouble is not None and schedule.trouble.retry == Retry.OPERATOR.value:
        return "this needs a person, and trying more often could do harm"
    grows = "waits grow with each failure and are partly random, so that devices do not come back all at once"
    return f"{grows}; none is over half of the life that the certificate has left" if living else grows


# --- both --------------------------------------------------------------------------------------------


def _reason(
    part: str,
    doing: str,
    schedule: Schedule,
    *,
    due: datetime | None,
    now: Moment,
    because: str,
    since: datetime | None = None,
) -> Reason:
    trouble = schedule.trouble
    if now.state is ClockState.UNKNOWN and due is not None:
        because += "; this host's clock is not set: the wait is counted from the last step"
    return Reason(
        part=part,
        doing=doing,
        since=since or schedule.since,
        trouble=trouble,
        attempts=schedule.attempts,
        next_attempt=due,
        because=because,
        advice=advice(trouble.code) if trouble is not None else "",
        stuck=trouble is not None and trouble.retry == Retry.OPERATOR.value,
    )
