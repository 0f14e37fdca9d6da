"""The storage root key is there, and it is the one that our keys were made under."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import times

CLEARED: Final = (
    "Nothing by hand while the IDevID is there: new keys and certificates are made by themselves. Find out"
    " who cleared the TPM (firmware update, firmware menu, tpm2_clear)."
)


def look(patient: Patient) -> Iterator[Finding]:
    """Compares the Name of the storage root key with the one that each wrapped key's file gives."""
    handle = patient.settings.keys.srk
    health = patient.tpm
    parents = patient.parents
    seen = f"TPM2_ReadPublic at {handle:#010x}, and the parent's name in {times(len(parents), 'key file')}"
    strangers = sorted(ref for ref, name in parents.items() if name != health.srk_name)
    if health.srk_name is None and parents:
        said = f"no storage root key stands at {handle:#010x}: the TPM was cleared, and its keys are lost"
        yield Finding(Verdict.FAIL, said, CLEARED, seen)
    elif health.srk_name is None:
        said = f"no storage root key stands at {handle:#010x} yet; the first key's making adds it"
        yield Finding(Verdict.OK, said, seen=seen)
    elif not health.srk_usable:
        said = f"the object at {handle:#010x} is no storage key"
        yield Finding(Verdict.FAIL, said, "Name another handle: keys: srk in the configuration.", seen)
    elif strangers:
        said = (
            f"the storage root key at {handle:#010x} is another than the one that made {', '.join(strangers)}"
        )
        yield Finding(Verdict.FAIL, said, CLEARED, seen)
    else:
        yield Finding(Verdict.OK, f"the storage root key at {handle:#010x} is there and unchanged", seen=seen)


CHECK: Final = Check("tpm-srk", "the TPM's storage root key is there and unchanged", look, store="tpm")
