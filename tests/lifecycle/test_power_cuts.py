"""kill -9 at every commit point, around every network message, and around every change of a key or a file.

Whatever the moment, one ``holdfast step`` later the device has exactly one active LDevID, the TPM or
token holds exactly its key and the factory's, and the certificate works in mutual TLS.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from demo.application import hello
from demo.hardware import PIN, Token
from demo.stage import Stage
from holdfast.host.store import StateStore
from holdfast.life.record import CredentialState, DeviceRecord, DomainState, Identity, Transaction
from keys.token_home import need
from lifecycle.token_contents import objects_on
from lifecycle.tpm_contents import flush_transient, handles

pytestmark = [pytest.mark.tpm, pytest.mark.crash, pytest.mark.timeout(900)]
IDENTITY = "ldevid"
Contents = set[Any]


class Device:
    """The staged device, with a crasher to run its agent."""

    def __init__(self, stage: Stage, work: Path) -> None:
        self.stage = stage
        self.work = work
        self._errors = (work / "stderr").open("w")
        self._crasher = subprocess.Popen(
            [sys.executable, "-m", "lifecycle.crasher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def close(self) -> None:
        assert self._crasher.stdin is not None
        assert self._crasher.stdout is not None
        self._crasher.stdin.close()
        self._crasher.wait(timeout=30)
        self._crasher.stdout.close()
        self._errors.close()

    def step(self, *arguments: str, kill_at: int = 0) -> tuple[int, list[str]]:
        """One ``holdfast step``; returns its exit code (negative: signal) and its events."""
        log = self.work / "events"
        log.unlink(missing_ok=True)
        order = {
            "argv": ["--config", str(self.stage.config), "step", "--json", *arguments],
            "kill_at": kill_at,
            "log": str(log),
            "output": str(self.work / "output"),
        }
        assert self._crasher.stdin is not None
        assert self._crasher.stdout is not None
        self._crasher.stdin.write(json.dumps(order) + "\n")
        self._crasher.stdin.flush()
        code = int(self._crasher.stdout.readline())
        return code, log.read_text().splitlines() if log.exists() else []

    def forget(self) -> None:
        """Back to the factory: no state. Keys of an earlier life are orphans for the next step to clear."""
        shutil.rmtree(self.stage.state, ignore_errors=True)
        if not isinstance(self.stage.hardware, Token):
            flush_transient(self.stage.tpm.tcti)

    def holds(self) -> Contents:
        """What stays in the hardware: persistent handles of a TPM, or the objects of a token."""
        if isinstance(self.stage.hardware, Token):
            token = self.stage.hardware.token
            return set(objects_on(token.module, token.label, PIN))
        return handles(self.stage.tpm.tcti).persistent

    def record(self) -> DeviceRecord:
        record = StateStore(self.stage.state).load().record
        assert record is not None
        return record

    def complaints(self) -> str:
        return (self.work / "output").read_text() + (self.work / "stderr").read_text()


@pytest.fixture(params=["blob", "persistent", pytest.param("pkcs11", marks=pytest.mark.pkcs11)])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    on_token = request.param == "pkcs11"
    if on_token:
        need("softhsm2-util:softhsm2")
    with Stage(keys="pkcs11") if on_token else Stage(storage=request.param) as stage:
        made = Device(stage, tmp_path)
        yield made
        made.close()


def assert_whole(device: Device, factory: Contents, moment: str) -> None:
    """One active LDevID that works, nothing under way, no key too many anywhere."""
    record = device.record()
    entry = record.identity(IDENTITY)
    assert record.domain.state is DomainState.VOUCHED, moment
    assert entry.credential.state is CredentialState.ACTIVE, moment
    assert entry.transaction == Transaction(), moment
    assert entry.retiring == (), moment
    assert record.key_refs() == {entry.credential.key}, moment
    assert_no_orphan(device, factory, entry, moment)
    assert "HF-2027-000042" in hello(device.stage.config, device.stage.servers.addresses["application"]), (
        moment
    )


def assert_no_orphan(device: Device, factory: Contents, entry: Identity, moment: str) -> None:
    """The hardware holds the maker's things and those of the one active key."""
    if isinstance(device.stage.hardware, Token):
        label = f"holdfast-{IDENTITY}-{entry.credential.generation}"
        own = {(kind, label, label.encode()) for kind in ("CERTIFICATE", "PRIVATE_KEY", "PUBLIC_KEY")}
        assert device.holds() == factory | own, moment
        return
    found = handles(device.stage.tpm.tcti)
    # A killed process leaves its loaded copy of a key where no resource manager flushes it (the kernel does
    # at /dev/tpmrm0): of the active key that is no orphan, of any other key it would be one.
    active = x509.load_der_x509_certificate(entry.credential.chain[0]).public_key()
    assert all(load_pem_public_key(pem) == active for pem in found.transient), moment
    if entry.credential.key.startswith("tpm2:blob:"):
        assert found.persistent == factory, moment
        assert len(list((device.stage.state / "keys").iterdir())) == 1, moment
    else:
        handle = int(entry.credential.key.removeprefix("tpm2:"), 16)
        assert found.persistent == factory | {handle}, moment


def test_first_boot(device: Device, record_property: Callable[[str, object], None]) -> None:
    factory = device.holds()
    code, events = device.step()
    assert code == 0, device.complaints()
    assert_whole(device, factory, "undisturbed")
    record_property("kill_points", len(events))
    assert events.count("network request") >= 5
    assert events.count("after commit") >= 6
    for number, event in enumerate(events, start=1):
        moment = f"killed at event {number} of {len(events)}: {event}"
        device.forget()
        code, _ = device.step(kill_at=number)
        assert code == -signal.SIGKILL, moment
        code, _ = device.step()
        assert code == 0, f"{moment}\n{device.complaints()}"
        assert_whole(device, factory, moment)


def test_renewal(device: Device, record_property: Callable[[str, object], None]) -> None:
    factory = device.holds()
    code, _ = device.step()
    assert code == 0, device.complaints()
    code, events = device.step("--renew", IDENTITY)
    assert code == 0, device.complaints()
    assert_whole(device, factory, "undisturbed")
    record_property("kill_points", len(events))
    assert events.count("network request") >= 4
    for number, event in enumerate(events, start=1):
        moment = f"killed at event {number} of {len(events)}: {event}"
        before = device.record().identity(IDENTITY).credential
        code, _ = device.step("--renew", IDENTITY, kill_at=number)
        assert code == -signal.SIGKILL, moment
        code, _ = device.step()
        assert code == 0, f"{moment}\n{device.complaints()}"
        assert_whole(device, factory, moment)
        assert device.record().identity(IDENTITY).credential.generation >= before.generation, moment
