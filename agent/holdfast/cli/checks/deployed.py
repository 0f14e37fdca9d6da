"""Other programs have the certificate that the record holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.host.credentials import CredentialFiles
from holdfast.life.record import CredentialState
from holdfast.wire.errors import StateError


def look(patient: Patient) -> Iterator[Finding]:
    """Compares the generation behind ``current`` with the record's."""
    settings = patient.settings
    for identity in settings.identities:
        entry = patient.record.identity(identity.name)
        if entry.credential.state is not CredentialState.ACTIVE:
            yield Finding(Verdict.SKIPPED, "there is nothing to give to other programs", about=identity.name)
            continue
        place = identity.deploy_directory or settings.state_directory / "identities"
        files = CredentialFiles(place, identity.name)
        seen = f"read where {files.current_directory} leads"
        try:
            current = files.current()
        except StateError as error:
            said = f"{error.detail} ({error.code})"
            yield Finding(Verdict.FAIL, said, advice(error.code), seen, identity.name)
            continue
        if current == entry.credential.generation:
            yield Finding(Verdict.OK, f"{files.current_directory} is current", "", seen, identity.name)
            continue
        has = "nothing" if current is None else f"generation {current}"
        said = f"other programs have {has}, the device generation {entry.credential.generation}"
        yield Finding(Verdict.FAIL, said, "Let a step bring it there: holdfast step", seen, identity.name)


CHECK: Final = Check("deployed", "other programs have the present certificate", look)
