"""Puts into the log what happened, in words and in fields. Nothing that a worker tells is a secret."""

from __future__ import annotations

from typing import Final

from holdfast.host.journal import Log
from holdfast.resident.messages import (
    IDENTITY_ACTIVE,
    IDENTITY_LOST,
    OPERATOR_NEEDED,
    STEP_DONE,
    STEP_FAILED,
    WORKER_BROKEN,
)
from holdfast.resident.reports import Effect, IdentityTold, Refusal, Report, Trouble

ACTIVE: Final = "active"


class Narrator:
    """Tells reports to *log*; what stays as it was is not told again."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def report(self, before: Report | None, after: Report) -> None:
        """What is new since the report *before*."""
        for identity in after.identities:
            self._identity(_named(before, identity.name), identity)
        fields = {"HOLDFAST_STATE": after.state, **_transaction(after)}
        if after.trouble is not None and (before is None or after.trouble != before.trouble):
            self._trouble(after.trouble, fields)
        for effect in after.effects:
            self._log.event(STEP_DONE, _effect_in_words(effect), {**fields, **_effect_fields(effect)})
        if before is None or after.state != before.state:
            self._log.event(STEP_DONE, f"state: {after.state}", fields)

    def refusal(self, refusal: Refusal) -> None:
        """A worker that gave no report."""
        trouble = refusal.trouble
        if trouble.code.startswith("worker."):
            self._log.event(WORKER_BROKEN, trouble.detail, {"HOLDFAST_REASON": trouble.code})
        elif trouble.code != "state.locked":
            self._trouble(trouble, {})

    def _identity(self, before: IdentityTold | None, after: IdentityTold) -> None:
        fields = {
            "HOLDFAST_IDENTITY": after.name,
            "HOLDFAST_STATE": after.state,
            "HOLDFAST_GENERATION": str(after.generation),
        }
        was_active = before is not None and before.state == ACTIVE
        if after.state == ACTIVE and (
            not was_active or before is None or before.generation < after.generation
        ):
            text = f"{after.name} is active, generation {after.generation}"
            self._log.event(IDENTITY_ACTIVE, text, fields)
        elif was_active and after.state != ACTIVE:
            self._log.event(IDENTITY_LOST, f"{after.name} is {after.state}", fields)

    def _trouble(self, trouble: Trouble, fields: dict[str, str]) -> None:
        message = OPERATOR_NEEDED if trouble.retry == "operator" else STEP_FAILED
        clause = f" ({trouble.clause})" if trouble.clause else ""
        detail = f": {trouble.detail}" if trouble.detail else ""
        more = {"HOLDFAST_REASON": trouble.code, "HOLDFAST_CLAUSE": trouble.clause}
        self._log.event(message, f"{trouble.code}{detail}{clause}", {**fields, **more})


def _named(report: Report | None, name: str) -> IdentityTold | None:
    return next((i for i in report.identities if i.name == name), None) if report else None


def _transaction(report: Report) -> dict[str, str]:
    """The transaction under way, if it is one; with several, each effect names its own identity."""
    under_way = [i for i in report.identities if i.transaction_id]
    if len(under_way) != 1:
        return {}
    return {
        "HOLDFAST_TRANSACTION": under_way[0].transaction_id,
        "HOLDFAST_PROTOCOL": under_way[0].protocol,
    }


def _effect_in_words(effect: Effect) -> str:
    who = f" {effect.identity}" if effect.identity else ""
    return f"{effect.name}{who}: {effect.result} ({effect.seconds * 1000:.0f} ms)"


def _effect_fields(effect: Effect) -> dict[str, str]:
    return {
        "HOLDFAST_EFFECT": effect.name,
        "HOLDFAST_IDENTITY": effect.identity,
        "HOLDFAST_PROTOCOL": effect.protocol,
        "HOLDFAST_RESULT": effect.result,
        "HOLDFAST_TRANSACTION": effect.transaction,
    }
