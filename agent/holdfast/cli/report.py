"""What the subcommands tell of a record: plain values, ready for JSON, without a secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from holdfast.cli.certificate_words import name_words
from holdfast.cli.reasons import Reason
from holdfast.cli.words import timestamp
from holdfast.life.record import Anchor, CredentialState, DeviceRecord, Identity, Ladder, Schedule, Trouble
from holdfast.wire.model import Moment

if TYPE_CHECKING:
    from holdfast.worker.step import StepReport


def step_report(report: StepReport) -> dict[str, Any]:
    """State in words, next due time (a date, and seconds from now), last trouble, and what the step did,
    effect by effect."""
    record = report.record
    return {
        "state": state_in_words(record),
        "due": timestamp(report.due),
        "wait_seconds": report.wait.total_seconds(),
        "note": report.note,
        "trouble": last_trouble(record),
        "steps": [
            {
                "name": t.name,
                "identity": t.identity,
                "began": t.began,
                "ended": t.ended,
                "round_trips": t.round_trips,
                "connections": t.connections,
                "result": t.result,
                "protocol": t.protocol,
                "transaction": t.transaction,
            }
            for t in report.traces
        ],
    }


def state_in_words(record: DeviceRecord) -> str:
    """One line for a person: domain, then each identity."""
    parts = [f"domain {record.domain.state.value}"]
    for entry in record.identities:
        text = f"{entry.name} {entry.credential.state.value}"
        if entry.transaction.state.value != "none":
            text += f" ({entry.transaction.purpose.value} {entry.transaction.state.value})"
        parts.append(text)
    return ", ".join(parts)


def last_trouble(record: DeviceRecord) -> dict[str, str | None] | None:
    """The most recent failure that nothing has cured yet."""
    schedules = [
        record.schedule,
        *(s for i in record.identities for s in (i.schedule, i.deployment.schedule)),
    ]
    troubles = [s.trouble for s in schedules if s.trouble is not None]
    if not troubles:
        return None
    return trouble_report(max(troubles, key=lambda t: t.at))


def trouble_report(trouble: Trouble | None) -> dict[str, str | None] | None:
    """One failure, in the words of the record."""
    if trouble is None:
        return None
    return {
        "code": trouble.code,
        "detail": trouble.detail,
        "clause": trouble.clause,
        "retry": trouble.retry,
        "at": timestamp(trouble.at),
    }


def device_report(
    record: DeviceRecord, note: str, reasons: Sequence[Reason] = (), now: Moment | None = None
) -> dict[str, Any]:
    """Everything that ``holdfast status --json`` prints."""
    domain = record.domain
    return {
        "state": state_in_words(record),
        "note": note,
        "trouble": last_trouble(record),
        "domain": {
            "state": domain.state.value,
            "registrar": domain.registrar or None,
            "anchors": [anchor_report(a) for a in domain.anchors],
            **schedule_report(record.schedule),
        },
        "identities": [identity_report(i) for i in record.identities],
        "time_floor": timestamp(record.time_floor),
        "clock": clock_report(now) if now is not None else None,
        "why": [r.values() for r in reasons],
    }


def clock_report(now: Moment) -> dict[str, Any]:
    """The time by which everything here is judged, and how far it is believed."""
    return {"state": now.state.value, "now": timestamp(now.now)}


def anchor_report(anchor: Anchor) -> dict[str, Any]:
    """Subject, fingerprint and where it came from."""
    certificate = x509.load_der_x509_certificate(anchor.certificate)
    return {
        "subject": name_words(certificate.subject),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "provenance": anchor.provenance.value,
        "since": timestamp(anchor.since),
        "not_after": timestamp(certificate.not_valid_after_utc),
    }


def identity_report(entry: Identity) -> dict[str, Any]:
    """Credential, transaction and schedule of one identity."""
    credential = entry.credential
    return {
        "name": entry.name,
        "credential": {
            "state": credential.state.value,
            "key": credential.key or None,
            "generation": credential.generation,
            **(certificate_report(credential.chain[0]) if credential.chain else {}),
        },
        "transaction": {
            "state": entry.transaction.state.value,
            "purpose": entry.transaction.purpose.value if entry.transaction.id else None,
            "protocol": entry.transaction.protocol or None,
            "key": entry.transaction.key or None,
        },
        "revocation": {
            "trouble": trouble_report(entry.standing.trouble),
            **schedule_report(entry.standing),
        },
        "deployment": {
            "stage": entry.deployment.stage if credential.state is CredentialState.ACTIVE else None,
            "trouble": trouble_report(entry.deployment.schedule.trouble),
            **schedule_report(entry.deployment.schedule),
        },
        "ladder": ladder_report(entry.ladder),
        **schedule_report(entry.schedule),
    }


def ladder_report(ladder: Ladder) -> dict[str, Any]:
    """The rung that answered last, and the last moves, oldest first, each with its reason code."""
    return {
        "rung": ladder.rung or None,
        "moves": [
            {"from": m.source, "to": m.target, "code": m.code, "at": timestamp(m.at)} for m in ladder.moves
        ],
    }


def certificate_report(der: bytes) -> dict[str, Any]:
    """What a person asks of a certificate first."""
    certificate = x509.load_der_x509_certificate(der)
    return {
        "subject": name_words(certificate.subject),
        "issuer": name_words(certificate.issuer),
        "serial": f"{certificate.serial_number:x}",
        "not_before": timestamp(certificate.not_valid_before_utc),
        "not_after": timestamp(certificate.not_valid_after_utc),
    }


def schedule_report(schedule: Schedule) -> dict[str, Any]:
    """When the next attempt is, and how often it failed in a row."""
    return {"next_attempt": timestamp(schedule.due), "failed_attempts": schedule.attempts}
