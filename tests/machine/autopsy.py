"""What a gateway that is switched off holds, looked at from outside: its filesystem, its record, its TPM."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from holdfast.host.store import StateStore
from holdfast.life.record import CredentialState, DeviceRecord, Identity, Transaction
from holdfast_factory.swtpm import Swtpm
from lifecycle.tpm_contents import handles
from machine import disk
from machine.gateway import Hardware
from machine.programs import run

STATE = "/var/lib/holdfast"


@dataclass(frozen=True)
class Remains:
    """``note``: what was odd about the record, or "". ``wrapped``: names of wrapped keys on disk.
    ``persistent``: handles of the TPM. ``chain``: the leaf that other programs find."""

    record: DeviceRecord
    note: str
    wrapped: frozenset[str]
    persistent: frozenset[int]
    leaf: x509.Certificate

    @property
    def ldevid(self) -> Identity:
        return self.record.identity("ldevid")


def examine(hardware: Hardware) -> Remains:
    """Fails if the filesystem is not clean, or the record does not load."""
    disk.check(hardware.disk)
    with tempfile.TemporaryDirectory() as directory:
        run("debugfs", "-R", f"rdump {STATE} {directory}", hardware.disk)
        state = Path(directory) / "holdfast"
        loaded = StateStore(state).peek()
        assert loaded.record is not None, loaded.note
        keys = state / "keys"
        wrapped = frozenset(path.name for path in keys.iterdir()) if keys.exists() else frozenset()
        leaf = x509.load_pem_x509_certificate((state / "identities/ldevid/current/chain.pem").read_bytes())
    with Swtpm(hardware.tpm) as tpm:
        persistent = frozenset(handles(tpm.tcti).persistent)
    return Remains(loaded.record, loaded.note, wrapped, persistent, leaf)


def assert_whole(remains: Remains, shipped: frozenset[int]) -> None:
    """Enrolled, at rest, and no key without a place in the record. *shipped*: handles from the maker."""
    entry = remains.ldevid
    assert entry.credential.state is CredentialState.ACTIVE
    assert entry.transaction == Transaction()
    assert remains.note == ""
    assert remains.leaf == x509.load_der_x509_certificate(entry.credential.chain[0])
    key = entry.credential.key
    assert remains.record.key_refs() == {key}
    if key.startswith("tpm2:blob:"):
        assert remains.persistent == shipped
        assert len(remains.wrapped) == 1, remains.wrapped
    else:
        assert remains.persistent == shipped | {int(key.removeprefix("tpm2:"), 16)}
        assert not remains.wrapped
