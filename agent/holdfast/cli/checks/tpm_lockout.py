"""The TPM's dictionary-attack counter. It is only read: an authorisation that is tried could be the last."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import span

CAUSES: Final = "wrong authorisation values, and power cuts that gave the TPM no notice, count up"


def look(patient: Patient) -> Iterator[Finding]:
    """Compares the counter with its limit."""
    health = patient.tpm
    seen = "TPM2_GetCapability: lockout counter, limit and interval; no authorisation was tried"
    counted = f"{health.failures} of {health.most_failures} failures are counted"
    forgives = (
        f"one is forgiven each {span(timedelta(seconds=health.forgives_after))}"
        if health.forgives_after
        else "none is forgiven by itself"
    )
    if health.locked:
        yield Finding(Verdict.FAIL, f"the TPM is locked: {counted}; {forgives}", advice("key.lockout"), seen)
    elif health.failures:
        why = f"Find out what counts ({CAUSES}) before the limit is reached."
        yield Finding(Verdict.WARN, f"{counted}; {forgives}", why, seen)
    else:
        yield Finding(Verdict.OK, f"no failure is counted, {health.most_failures} would lock it", seen=seen)


CHECK: Final = Check("tpm-lockout", "the TPM's counter of failed authorisations", look, store="tpm")
