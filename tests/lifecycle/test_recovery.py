"""Recovery without a visit: whatever was lost or has changed, a device comes back, or says why not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import main
from holdfast.host import store
from holdfast.host.durable import Directory
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import SCHEMA, CredentialState, DeviceRecord, DomainState, TransactionState, encode
from holdfast.wire.errors import KeyNotFound, KeyStoreUnavailable, SchemaTooNew, StateCorrupt, StateError
from holdfast_sim.faults import Fault
from holdfast_sim.site import Site
from lifecycle.device import Device
from lifecycle.soft_keys import SoftKey

AFTER_END = "  - name: ldevid\n    protocols: [{est: {}}]\n    renew: {after-expiry: true}\n"


def code_of(device: Device) -> str:
    trouble = device.identity.schedule.trouble or device.record.schedule.trouble
    return trouble.code if trouble else ""


def usable(device: Device) -> None:
    """One active credential, its files in place, its key and no other."""
    assert device.active
    assert device.files("ldevid").current() == device.identity.credential.generation
    assert device.keys.refs() == {device.identity.credential.key}


def clients_of(device: Device, operation: str) -> list[str]:
    return [r.client for r in device.world.issued if r.operation == operation]


# --- a certificate that has ended ---------------------------------------------------------------------


def test_an_ended_certificate_renews_itself_where_the_server_allows_it(tmp_path: Path) -> None:
    """FIELD-LESSONS 4: expired while offline."""
    device = Device(tmp_path, identities=AFTER_END)
    device.world.est = replace(device.world.est, renew_expired=True)
    device.step()
    asked = len(device.world.audit)
    device.pass_time(timedelta(days=400))
    device.step()
    usable(device)
    assert [r.operation for r in device.world.issued] == ["simpleenroll", "simplereenroll"]
    assert len(device.world.audit) == asked, "no new voucher was needed"


@pytest.mark.parametrize("identities", [AFTER_END, ""])
def test_where_it_does_not_the_idevid_enrolls_again(tmp_path: Path, identities: str) -> None:
    device = Device(tmp_path, **({"identities": identities} if identities else {}))  # type: ignore[arg-type]
    device.step()
    device.pass_time(timedelta(days=400))
    device.live_until_active(steps=4)
    usable(device)
    assert [r.operation for r in device.world.issued] == ["simpleenroll", "simpleenroll"]
    tried = [t for t in device.targets() if t.endswith("simplereenroll")]
    assert bool(tried) == bool(identities)


def test_an_ended_certificate_and_no_idevid_goes_on_trying_and_says_so(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=AFTER_END)
    device.step()
    device.pass_time(timedelta(days=400))

    def gone() -> Any:
        raise KeyNotFound("key.not-found", "the handle of the IDevID is empty")

    environment = device.environment
    device_without = replace(environment, factory=gone)
    from holdfast.worker.step import Step

    codes = set()
    for _ in range(6):
        report = Step(device_without).run()
        codes.add(code_of(device))
        assert report.due > device.clock.now
        device.clock.now = report.due
    assert "key.not-found" in codes
    device.world.est = replace(device.world.est, renew_expired=True)
    for _ in range(3):
        device.clock.now = Step(device_without).run().due
    assert device.active, "the server allows it now"


# --- a registrar that changed -------------------------------------------------------------------------


def test_a_registrar_whose_certificate_was_replaced_by_its_ca_is_no_stranger(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.world.domain = device.world.domain.with_new_registrar(device.clock.now)
    device.step(renew=["ldevid"])
    usable(device)
    assert device.identity.credential.generation == 2
    assert len(device.world.audit) == 1


def test_a_registrar_of_another_ca_costs_nothing_while_a_credential_lives(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.world.domain = device.world.impostor
    for _ in range(20):
        device.clock.now = device.step(renew=["ldevid"]).due
        if device.clock.now > device.identity_end:
            break
        assert device.active
        assert device.record.domain.state is DomainState.VOUCHED
    assert code_of(device).startswith("chain.")


def test_a_domain_that_changed_all_its_keys_is_found_again_by_the_idevid(tmp_path: Path) -> None:
    """The registrar's CA was compromised and replaced: the voucher speaks of the new one."""
    device = Device(tmp_path)
    device.step()
    device.world.domain = device.world.impostor
    device.world.ledger = dict.fromkeys(device.world.ledger)
    device.clock.now = device.identity_end + timedelta(days=1)
    device.live_until_active()
    usable(device)
    assert len(device.world.audit) == 2


def test_a_registrar_that_refuses_us_is_asked_again_for_a_voucher(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.clock.now = device.identity_end + timedelta(days=1)
    device.reface(["simpleenroll:refuse:1"])
    device.step()
    assert device.record.domain.state is DomainState.NONE
    device.live_until_active()
    usable(device)


# --- hardware ----------------------------------------------------------------------------------------


def test_cleared_hardware_sets_the_record_aside_and_bootstraps_again(tmp_path: Path) -> None:
    """FIELD-LESSONS 12."""
    device = Device(tmp_path)
    device.step()
    before = device.record
    assert before.home == "chip-1"
    device.keys.clear()
    device.step()
    usable(device)
    assert device.record.home == "chip-1'"
    assert len(device.world.audit) == 2
    aside = device.settings.state_directory / "record.other-hardware-1"
    assert store.unseal(aside.read_bytes()) == before
    device.step()
    assert not aside.with_name("record.other-hardware-2").exists()


def test_cleared_hardware_without_an_idevid_says_why_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from holdfast.worker.step import Step

    device = Device(tmp_path)
    device.step()
    device.keys.clear()

    def gone() -> Any:
        raise KeyNotFound("key.not-found", "the handle of the IDevID is empty")

    for _ in range(3):
        report = Step(replace(device.environment, factory=gone)).run()
        assert report.due > device.clock.now
        device.clock.now = report.due
    assert device.record.domain.state is DomainState.NONE
    assert code_of(device) == "key.not-found"
    assert main(["--config", str(tmp_path / "holdfast.yaml"), "why"]) == 1
    assert "key.not-found" in capsys.readouterr().out
    device.live_until_active()
    usable(device)


def test_a_power_cut_between_setting_aside_and_the_new_record_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.step()
    device.keys.clear()

    class CutError(BaseException):
        pass

    def cut(_store: StateStore, _record: DeviceRecord) -> None:
        raise CutError

    with monkeypatch.context() as patched:
        patched.setattr(StateStore, "commit", cut)
        with pytest.raises(CutError):
            device.step()
    device.step()
    usable(device)


def test_hardware_that_does_not_answer_is_no_other_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.step()
    before = device.record

    def silent() -> str:
        raise KeyStoreUnavailable("key.tpm-unreachable", "no answer")

    monkeypatch.setattr(device.keys, "home", silent)
    device.step()
    assert device.record == before


def test_a_key_that_is_missing_is_made_anew_within_the_same_domain(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.keys.keys.clear()
    device.step(renew=["ldevid"])
    usable(device)
    assert len(device.world.audit) == 1
    assert clients_of(device, "simpleenroll")[1:] != []


def test_keys_that_no_record_names_are_destroyed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    orphan = KeyRef("soft:ldevid-77")
    device.keys.keys[orphan] = SoftKey(orphan, device.keys.keys[device.identity.credential.key].signer())
    device.step()
    usable(device)


# --- the record --------------------------------------------------------------------------------------


def test_a_lost_state_directory_starts_anew(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    shutil.rmtree(device.settings.state_directory)
    device.step()
    usable(device)
    assert len(device.world.audit) == 2


@pytest.mark.parametrize("keys_too", [True, False], ids=["with-its-keys", "without-its-keys"])
def test_a_state_directory_that_was_rolled_back_goes_on_from_there(tmp_path: Path, keys_too: bool) -> None:
    """A backup was restored, or a file system fell back to an older snapshot."""
    device = Device(tmp_path)
    device.step()
    backup = tmp_path / "backup"
    shutil.copytree(device.settings.state_directory, backup, symlinks=True)
    keys = dict(device.keys.keys)
    device.step(renew=["ldevid"])
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 3
    shutil.rmtree(device.settings.state_directory)
    shutil.copytree(backup, device.settings.state_directory, symlinks=True)
    if keys_too:
        device.keys.keys = keys
    device.step()
    device.step(renew=["ldevid"])
    device.live_until_active()
    usable(device)


def test_a_record_that_was_rolled_back_alone_finds_its_files_newer(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    older = (device.settings.state_directory / "record").read_bytes()
    device.step(renew=["ldevid"])
    device.step(renew=["ldevid"])
    (device.settings.state_directory / "record").write_bytes(older)
    for _ in range(3):
        device.clock.now = device.step().due if not device.active else device.clock.now
        device.step()
    usable(device)


def corrupt(device: Device, *names: str) -> None:
    for name in names:
        path = device.settings.state_directory / name
        image = bytearray(path.read_bytes())
        image[len(image) // 2] ^= 1
        path.write_bytes(image)


def test_a_damaged_record_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device(tmp_path)
    device.step()
    corrupt(device, "record")
    report = device.step()
    assert "used record.previous" in report.note
    device.live_until_active()
    usable(device)


def test_two_damaged_records_are_kept_aside_and_the_device_starts_anew(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    corrupt(device, "record", "record.previous")
    with pytest.raises(StateCorrupt):
        device.step()
    device.step()
    usable(device)
    assert (device.settings.state_directory / "record.corrupt-1").exists()


FIXTURES = Path(__file__).parent / "records"


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_a_stored_record_of_each_schema_is_read_and_lived_on(tmp_path: Path, schema: int) -> None:
    """ADR 5: the bytes were written by the agent of that time and are never made anew."""
    image = (FIXTURES / f"schema-{schema}.record").read_bytes()
    device = Device(tmp_path)
    device.settings.state_directory.mkdir()
    (device.settings.state_directory / "record").write_bytes(image)
    loaded = StateStore(device.settings.state_directory).load()
    assert loaded.note == ""
    assert loaded.record is not None
    entry = loaded.record.identity("ldevid")
    assert entry.credential.state is CredentialState.ACTIVE
    assert entry.credential.chain
    assert loaded.record.domain.anchors
    # Its key is not in this hardware, and its domain is not this world's: it finds its way all the same.
    device.clock.now = max(device.clock.now, loaded.record.floor)
    device.live_until_active()
    for _ in range(4):
        device.clock.now = max(device.clock.now + timedelta(days=100), device.step().due)
    device.live_until_active()
    usable(device)
    assert json.loads(_payload(device))["schema"] == SCHEMA


def _payload(device: Device) -> bytes:
    return (device.settings.state_directory / "record").read_bytes().split(b"\n", 1)[1]


def test_a_record_of_a_newer_schema_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device(tmp_path)
    device.step()
    path = device.settings.state_directory / "record"
    newer = store.seal(encode(device.record).replace(b'"schema":%d' % SCHEMA, b'"schema":99', 1))
    path.write_bytes(newer)
    with pytest.raises(SchemaTooNew):
        device.step()
    assert path.read_bytes() == newer
    assert device.keys.refs(), "no key of the newer agent was taken for an orphan"
    assert main(["--config", str(tmp_path / "holdfast.yaml"), "status"]) == 2
    assert "install the newer agent" in capsys.readouterr().err


# --- the disk ----------------------------------------------------------------------------------------


def step_or_say(device: Device) -> str:
    """The code of what a renewal ran into."""
    try:
        device.step(renew=["ldevid"])
    except StateError as error:
        return error.code
    entry = device.identity
    trouble = entry.schedule.trouble or entry.deployment.schedule.trouble
    return trouble.code if trouble else ""


@pytest.mark.parametrize(("error", "code"), [(28, "state.full"), (30, "state.read-only")])
@pytest.mark.parametrize("at", range(1, 9))
def test_a_disk_that_takes_nothing_is_named_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, code: str, at: int
) -> None:
    """FIELD-LESSONS 7: full or read-only from the *at*-th write of a renewal on, and later well again."""
    device = Device(tmp_path)
    device.step()
    held = device.identity.credential
    write, count = Directory.write, [0]

    def failing(directory: Directory, *args: Any, **kwargs: Any) -> None:
        count[0] += 1
        if count[0] >= at:
            raise OSError(error, "the disk takes nothing")
        write(directory, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "write", failing)
        assert step_or_say(device) in {code, code.replace("state.", "credentials."), ""}
        assert device.identity.credential.chain in (held.chain, device.identity.credential.chain)
        assert device.active
        assert held.key in device.keys.refs() or device.identity.credential.key in device.keys.refs()
    for _ in range(3):
        device.clock.now += timedelta(hours=7)
        device.step(renew=["ldevid"] if device.identity.credential.generation == 1 else [])
    usable(device)
    assert device.identity.credential.generation == 2
    assert device.identity.transaction.state is TransactionState.NONE


def test_faults_are_real(tmp_path: Path) -> None:
    """The site of these tests does misbehave when told to."""
    device = Device(tmp_path)
    assert Site(device.world, [Fault.parse("simpleenroll:refuse:1")]).faults.due("simpleenroll", "refuse")
