"""Each certificate is valid, and its renewal is planned before its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import relative, timestamp, when
from holdfast.host.config import IdentitySettings
from holdfast.life.record import CredentialState, DomainState, Identity
from holdfast.wire.model import Moment
from holdfast.worker.agenda import leaf_of, next_due

OVERDUE: Final = timedelta(hours=1)
"""A due time that has passed for longer means that nobody takes the steps."""
SCARCE: Final = 0.1
"""Under this share of a life a person should look, whatever is planned."""


def look(patient: Patient) -> Iterator[Finding]:
    """The certificate's dates, the next attempt in the record, and the present time."""
    for settings in patient.settings.identities:
        entry = patient.record.identity(settings.name)
        if entry.credential.state is CredentialState.ACTIVE:
            yield _renewal(patient, settings, entry)
        else:
            yield _missing(patient, entry)


def _renewal(patient: Patient, settings: IdentitySettings, entry: Identity) -> Finding:
    now, leaf = patient.now, leaf_of(entry)
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    due = next_due(patient.record, (settings,), now)
    name, seen = entry.name, "the dates of the certificate and the schedule in the record"
    left = f"it ends at {when(end, now.now)}"
    if end <= (now.now if now.trusted else now.floor):
        return Finding(Verdict.FAIL, f"its certificate ended at {timestamp(end)}", _ask(entry), seen, name)
    if _overdue(now, due):
        said = f"its next step was due {relative(due, now.now)}, and nobody took it; {left}"
        how = "Start the agent (systemctl status holdfast), or take a step: holdfast step"
        return Finding(Verdict.FAIL, said, how, seen, name)
    if due >= end:
        return Finding(
            Verdict.FAIL, f"its next attempt is at {timestamp(due)}; {left}", _ask(entry), seen, name
        )
    if end - now.now < (end - begin) * SCARCE:
        return Finding(Verdict.WARN, f"it should have been renewed by now; {left}", _ask(entry), seen, name)
    said = f"the next step is at {when(due, now.now)}; the certificate ends at {timestamp(end)}"
    return Finding(Verdict.OK, said, "", seen, name)


def _missing(patient: Patient, entry: Identity) -> Finding:
    state, seen = entry.credential.state, "the record"
    if patient.record.domain.state is not DomainState.VOUCHED and state is CredentialState.NONE:
        said = "it has no certificate, because the device does not know its owner yet"
        return Finding(Verdict.WARN, said, "See what it waits for: holdfast why", seen, entry.name)
    words = {
        CredentialState.NONE: "it has no certificate yet",
        CredentialState.EXPIRED: "its certificate ended",
    }
    return Finding(
        Verdict.FAIL, words.get(state, "its certificate was revoked"), _ask(entry), seen, entry.name
    )


def _ask(entry: Identity) -> str:
    trouble = entry.schedule.trouble
    reason = f"The last error was {trouble.code}. {advice(trouble.code)} " if trouble else ""
    return f"{reason}See also: holdfast why {entry.name}"


def _overdue(now: Moment, due: object) -> bool:
    return now.trusted and isinstance(due, type(now.now)) and now.now - due > OVERDUE


CHECK: Final = Check("renewal", "certificates are valid and renewed in time", look)
