"""The device's record can be read, and is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.wire.errors import StateError


def look(patient: Patient) -> Iterator[Finding]:
    """Reads the record as a step would, but moves nothing aside."""
    directory = patient.settings.state_directory
    seen = f"read the record in {directory} and its checksum"
    try:
        loaded = patient.read_record()
    except StateError as error:
        yield Finding(Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen)
        return
    if loaded.note:
        why = "Nothing by hand: the next step makes it whole. Look for a worn disk if it happens again."
        yield Finding(Verdict.WARN, f"the record was damaged: {loaded.note}", why, seen)
    elif loaded.record is None:
        yield Finding(Verdict.OK, "there is no record yet; the first step makes one", seen=seen)
    else:
        yield Finding(Verdict.OK, "the record is whole", seen=seen)


CHECK: Final = Check("state", "the device's record is whole", look)
