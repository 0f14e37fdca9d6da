"""The TPM answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.host.lock import holder
from holdfast.wire.errors import KeyStoreError


def look(patient: Patient) -> Iterator[Finding]:
    """Asks for the TPM's properties."""
    seen = f"TPM2_GetCapability at {patient.settings.keys.tcti}"
    try:
        health = patient.read_tpm()
    except KeyStoreError as error:
        busy = holder(patient.settings.state_directory)
        if busy is not None:
            said = f"a step is under way in {busy} and has the TPM to itself: ask again in a moment"
            yield Finding(Verdict.SKIPPED, said, seen=seen)
            return
        yield Finding(Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen)
        return
    yield Finding(
        Verdict.OK, f"a TPM of {health.manufacturer}, firmware {health.firmware}, answers", seen=seen
    )


CHECK: Final = Check("tpm", "the TPM answers", look, store="tpm")
