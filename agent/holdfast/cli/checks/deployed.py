"""Other programs have the certificate that the record holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.host.credentials import CredentialFiles
from holdfast.life.record import CredentialState, Identity
from holdfast.wire.errors import StateError


def look(patient: Patient) -> Iterator[Finding]:
    """Compares the generation behind ``current`` with the record's; the record tells of the hooks."""
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
            yield _told(entry, str(files.current_directory), seen)
            continue
        has = "nothing" if current is None else f"generation {current}"
        said = f"other programs have {has}, the device generation {entry.credential.generation}"
        yield Finding(Verdict.FAIL, said, "Let a step bring it there: holdfast step", seen, identity.name)


def _told(entry: Identity, place: str, seen: str) -> Finding:
    """The files are there; whether the hooks that tell other programs of it have all run."""
    deployment = entry.deployment
    trouble = deployment.schedule.trouble
    if deployment.complete or not deployment.placed:
        return Finding(Verdict.OK, f"{place} is current", "", seen, entry.name)
    if trouble is None:
        said = "the files are current, and other programs are still to be told of it"
        return Finding(Verdict.WARN, said, "Let a step do it: holdfast step", seen, entry.name)
    said = f"the files are current, but telling other programs failed: {trouble.detail} ({trouble.code})"
    return Finding(Verdict.FAIL, said, advice(trouble.code), seen, entry.name)


CHECK: Final = Check("deployed", "other programs have the present certificate", look)
