"""The configuration is complete and valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.wire.errors import ConfigError


def look(patient: Patient) -> Iterator[Finding]:
    """One finding for each fault, or one that all is well."""
    seen = f"read {patient.config} and held it against the schema"
    try:
        settings = patient.read_settings()
    except ConfigError as error:
        for line in error.detail.split("\n"):
            yield Finding(Verdict.FAIL, line, "Correct it; the page on configuration names every key.", seen)
        return
    count = len(settings.identities)
    many = "one identity" if count == 1 else f"{count} identities"
    yield Finding(Verdict.OK, f"{patient.config} is valid and names {many}", seen=seen)


CHECK: Final = Check("config", "the configuration is complete and valid", look)
