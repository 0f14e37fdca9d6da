"""The maker's identity: its key and certificate are there, belong together and are valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.keys import same_key
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import timestamp
from holdfast.host.config import IdevidSettings
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError
from holdfast.worker.factory import factory_identity

WITHOUT: Final = "Without it the device cannot find its way back after its other certificates are lost."


def look(patient: Patient) -> Iterator[Finding]:
    """Reads public parts only: the key's authorisation is not tried."""
    where, place = _places(patient.settings.idevid)
    seen = f"read the public key at {where} and the certificate in {place}"
    try:
        factory = factory_identity(patient.settings, patient.maker)
    except (KeyStoreError, ConfigError) as error:
        yield _failed(error, seen)
        return
    leaf = factory.chain[0]
    end = leaf.not_valid_after_utc
    if not same_key(factory.key, leaf):
        said = f"the certificate in {place} is not for the key at {where}"
        yield Finding(Verdict.FAIL, said, f"Correct idevid in the configuration. {WITHOUT}", seen)
    elif patient.now.trusted and end < patient.now.now:
        said = f"the maker's certificate ended at {timestamp(end)}"
        yield Finding(Verdict.WARN, said, f"Ask the maker for a new one. {WITHOUT}", seen)
    else:
        said = f"the IDevID of {factory.serial_number} is there, and its key fits"
        yield Finding(Verdict.OK, said, seen=seen)


def _places(idevid: IdevidSettings) -> tuple[str, str]:
    """Where key and certificate are, for a person."""
    where = idevid.token.uri.text() if idevid.token else f"{idevid.handle:#010x}"
    held = "the token" if idevid.token else f"NV index {idevid.nv_index:#010x}"
    return where, str(idevid.certificate_file or held)


def _failed(error: HoldfastError, seen: str) -> Finding:
    said = f"{error.detail} ({error.code})"
    return Finding(Verdict.FAIL, said, f"{advice(error.code)} {WITHOUT}", seen)


CHECK: Final = Check("idevid", "the maker's key and certificate are there and fit", look)
