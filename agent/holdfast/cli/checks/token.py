"""The PKCS#11 token answers and takes the PIN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.wire.errors import KeyStoreError


def look(patient: Patient) -> Iterator[Finding]:
    """Logs in as a step does: a PIN that was refused before is not tried again."""
    token = patient.settings.keys.token
    assert token is not None  # the check is for this kind of store
    seen = f"logged in to {token.uri.text()} by {token.module} and listed our keys"
    try:
        found = patient.read_token()
    except KeyStoreError as error:
        yield Finding(Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen)
        return
    yield Finding(Verdict.OK, f"the token answers and holds {len(found)} of our keys", seen=seen)


CHECK: Final = Check("token", "the PKCS#11 token answers and takes the PIN", look, store="pkcs11")
