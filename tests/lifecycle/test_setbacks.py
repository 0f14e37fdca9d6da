"""What a device does when its own host, its configuration or its hardware lets it down: it says so, loses
nothing, keeps its other identities alive, and comes back by itself."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.host.transport import Channel, Link
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.life.record import (
    CredentialState,
    DeviceRecord,
    DomainState,
    Identity,
    Schedule,
    TransactionState,
)
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, StateError
from holdfast.wire.model import ClockState, Purpose
from holdfast.worker.step import Step, StepReport
from holdfast_sim.world import World
from lifecycle.device import REGISTRAR, SECOND, T0, Device
from lifecycle.soft_keys import SoftKey

TWO = "  - name: ldevid\n    protocols: [{est: {}}]\n  - name: second\n    protocols: [{est: {}}]\n"


def code_of(entry: Identity) -> str:
    return entry.schedule.trouble.code if entry.schedule.trouble else ""


def deploy_code(entry: Identity) -> str:
    trouble = entry.deployment.schedule.trouble
    return trouble.code if trouble else ""


def step_when_due(device: Device, times: int = 1) -> StepReport:
    """Step at each due time, as ``holdfast run`` does."""
    report = device.step()
    for _ in range(times):
        device.clock.now = max(device.clock.now, report.due)
        report = device.step()
    return report


# --- the disk ----------------------------------------------------------------------------------------


def block(device: Device, name: str) -> Path:
    """A file stands where the directory of identity *name* should be, so nothing can be deployed."""
    home = device.settings.state_directory / "identities" / name
    if home.exists():
        home.rename(home.with_name(f"{name}-aside"))
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("in the way")
    return home


def unblock(home: Path) -> None:
    home.unlink()
    aside = home.with_name(f"{home.name}-aside")
    if aside.exists():
        aside.rename(home)


def test_one_identity_whose_files_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO)
    home = block(device, "ldevid")
    device.step()
    assert device.record.identity("second").credential.state is CredentialState.ACTIVE
    assert code_of(device.identity).startswith("credentials.")
    assert device.identity.schedule.due is not None
    unblock(home)
    device.live_until_active()
    assert device.environment.files("ldevid").current() == 1


def test_an_old_key_is_not_destroyed_before_the_new_credential_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.step()
    old = device.identity.credential.key
    files = device.environment.files("ldevid")
    home = device.settings.state_directory / "identities" / "ldevid"

    def full(_files: CredentialFiles, _generation: int) -> None:
        raise StateError("credentials.no-space", "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialFiles, "promote", full)
        device.step(renew=["ldevid"])
        assert device.identity.credential.generation == 2
        assert files.current() == 1, home
        assert old in device.keys.refs()
        assert deploy_code(device.identity) == "credentials.no-space"
        step_when_due(device, 2)
        assert old in device.keys.refs()
    step_when_due(device)
    assert files.current() == 2
    assert device.keys.refs() == {device.identity.credential.key}
    assert device.identity.retiring == ()
    assert device.identity.schedule == Schedule()


def test_what_was_cured_is_forgotten_and_the_device_rests(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface(["cacerts:status:1:code=500"])
    device.step(renew=["ldevid"])
    assert code_of(device.identity) == "est.unavailable"
    report = step_when_due(device)
    assert device.identity.schedule == Schedule()
    assert report.due > device.clock.now + timedelta(days=30)


# --- the configuration -------------------------------------------------------------------------------


def test_a_password_file_that_is_gone_is_trouble_of_that_identity_alone(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2-secret\n")
    secret.chmod(0o600)
    est = f"{{username: gw, password-file: {secret}}}"
    device = Device(
        tmp_path,
        identities=f"  - name: ldevid\n    protocols: [{{est: {est}}}]\n"
        "  - name: second\n    protocols: [{est: {}}]\n",
    )
    secret.unlink()
    device.step()
    assert code_of(device.identity) == "config.secret"
    assert device.record.identity("second").credential.state is CredentialState.ACTIVE
    secret.write_text("hunter2-secret\n")
    device.live_until_active()
    assert b"hunter2" not in (device.settings.state_directory / "record").read_bytes()


def test_names_that_do_not_fit_into_a_certificate_are_said_not_crashed_on(tmp_path: Path) -> None:
    device = Device(tmp_path)
    long = replace(device.settings.identities[0], subject={"common-name": "x" * 60 + "{serial}"})
    device.settings = replace(device.settings, identities=(long,))
    device.step()
    assert code_of(device.identity) == "config.names"
    assert device.identity.schedule.due is not None


def test_an_identity_that_left_the_configuration_holds_nobody_up(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO, faults=["simpleenroll:pending:0:retry-after=1"])
    device.step()
    record = device.record
    assert record.identity("second").transaction.state is TransactionState.PENDING
    device.reface([])
    device.settings = replace(device.settings, identities=device.settings.identities[:1])
    device.live_until_active()
    waited = sum(device.clock.waits)
    device.step()
    assert sum(device.clock.waits) == waited


def test_an_old_active_identity_outside_the_configuration_does_not_bind_the_device_to_a_lost_domain(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    device.step()
    record = device.record
    store = StateStore(device.settings.state_directory)
    old = replace(record.identity("ldevid"), name="aged")
    store.commit(replace(record, identities=(old, Identity("ldevid"))))
    device.reface(["simpleenroll:foreign-ca:1"])
    device.step()
    assert device.record.domain.state is DomainState.NONE


def test_a_lost_domain_is_kept_while_another_identity_is_active(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO, faults=["simpleenroll:foreign-ca:1"])
    device.step()
    assert device.record.domain.state is DomainState.NONE
    device.reface([])
    device.live_until_active()
    step_when_due(device, 2)
    entry = replace(device.record.identity("second"), credential=Identity("x").credential)
    StateStore(device.settings.state_directory).commit(device.record.with_identity(entry))
    device.reface(["simpleenroll:foreign-ca:1"])
    device.step()
    assert device.record.domain.state is DomainState.VOUCHED
    assert code_of(device.record.identity("second")) == "chain.untrusted"


# --- the hardware ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [KeyNotFound("key.not-found"), KeyStoreError("key.parent-changed", "the TPM was cleared")]
)
def test_a_credential_whose_key_is_gone_is_enrolled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: KeyStoreError
) -> None:
    device = Device(tmp_path)
    device.step()
    lost = device.identity.credential
    load = device.keys.load

    def gone(ref: KeyRef) -> SoftKey:
        if ref == lost.key:
            raise error
        return load(ref)

    monkeypatch.setattr(device.keys, "load", gone)
    device.step(renew=["ldevid"])
    assert device.active
    assert device.identity.credential.key != lost.key
    assert device.identity.credential.generation == 2
    assert device.world.issued[-1].operation == "simpleenroll"
    assert device.keys.refs() == {device.identity.credential.key}


@pytest.mark.parametrize("waits", [False, True], ids=["at rest", "while it waits"])
def test_a_key_that_is_gone_is_noticed_long_before_the_renewal(tmp_path: Path, *, waits: bool) -> None:
    device = Device(tmp_path)
    device.step()
    if waits:
        device.reface(["cacerts:status:1"])
        device.step(renew=["ldevid"])
        assert device.identity.schedule.due is not None
    device.keys.destroy(device.identity.credential.key)
    device.step()
    assert device.active
    assert device.world.issued[-1].operation == "simpleenroll"
    assert device.keys.refs() == {device.identity.credential.key}


def test_a_kind_of_key_that_the_hardware_cannot_make_is_not_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    generate = device.keys.generate

    def cannot(_ref: KeyRef, _spec: KeySpec) -> SoftKey:
        raise KeyStoreError("key.unsupported", "not with this chip")

    monkeypatch.setattr(device.keys, "generate", cannot)
    device.step()
    assert code_of(device.identity) == "key.unsupported"
    assert (
        device.identity.transaction.state is TransactionState.NONE
    )  # the next attempt reads the wishes anew
    monkeypatch.setattr(device.keys, "generate", generate)
    device.live_until_active()


def test_a_locked_key_waits_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path)
    tried: list[KeyRef] = []

    def locked(ref: KeyRef, _spec: KeySpec) -> SoftKey:
        tried.append(ref)
        raise KeyLocked("key.auth-failed", "wrong value")

    monkeypatch.setattr(device.keys, "generate", locked)
    report = device.step()
    assert report.due >= device.clock.now + timedelta(hours=6)
    device.pass_time(timedelta(hours=5))
    device.step()
    assert len(tried) == 1


# --- the clock ---------------------------------------------------------------------------------------


def clocked_world() -> World:
    """Servers whose clock is right, whatever the device believes."""
    return World.create(lambda: T0, secrets.token_bytes)


def stop_clock(device: Device) -> None:
    """A host without a clock: 1970, and nobody sets it."""
    StateStore(device.settings.state_directory).commit(DeviceRecord(floor=device.clock.now))
    device.clock.now = datetime.fromtimestamp(0, device.clock.now.tzinfo)


def test_a_device_without_a_clock_tries_again(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["simpleenroll:status:1:code=500"], world=clocked_world())
    stop_clock(device)
    report = device.step()
    assert not device.active
    assert timedelta(0) < report.wait < timedelta(minutes=1)
    device.step()
    assert device.active


def test_a_device_without_a_clock_polls_a_registrar_that_asks_for_patience(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["requestvoucher:pending:3:retry-after=60"], world=clocked_world())
    stop_clock(device)
    for _ in range(4):
        device.step()
    assert device.active


@pytest.mark.parametrize("state", ClockState)
def test_a_clock_at_the_end_of_time_breaks_nothing(tmp_path: Path, state: ClockState) -> None:
    device = Device(tmp_path, registrars=["dead.example:1"])
    device.clock.now = datetime.max.replace(tzinfo=device.clock.now.tzinfo)
    device.clock.state = state
    device.step()
    device.step()
    assert device.record.schedule.trouble is not None


# --- the proof ---------------------------------------------------------------------------------------


def test_earlier_failures_do_not_use_up_the_proofs_of_a_new_certificate(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface(["simplereenroll:status:9:code=500"])
    device.step(renew=["ldevid"])
    device.clock.now += timedelta(days=65)  # due by now
    for _ in range(8):
        device.step()
        device.clock.now = device.identity.schedule.due or device.clock.now
    device.reface(["cacerts:status:1:code=403"])
    device.step()
    assert device.identity.transaction.state is TransactionState.STAGED
    step_when_due(device)
    assert device.identity.credential.generation == 2


def test_a_certificate_that_ended_before_it_could_be_proved_is_given_up(tmp_path: Path) -> None:
    verified = "  - name: ldevid\n    protocols: [{est: {}}]\n    verify: {url: 'https://localhost:9443/'}\n"
    device = Device(tmp_path, identities=verified)
    device.step()
    assert device.identity.transaction.state is TransactionState.STAGED
    staged = device.identity.transaction
    device.pass_time(timedelta(days=200))
    device.step()
    assert code_of(device.identity) == "proof.too-late"
    assert staged.key not in device.keys.refs()
    device.servers["localhost", 9443] = "application"
    device.live_until_active()


def test_a_proof_elsewhere_says_nothing_about_the_domain(tmp_path: Path) -> None:
    verified = "  - name: ldevid\n    protocols: [{est: {}}]\n    verify: {url: 'https://localhost:9443/'}\n"
    device = Device(tmp_path, identities=verified)
    device.servers["localhost", 9443] = "masa"  # not of this domain
    device.step()
    assert code_of(device.identity).startswith("chain.")
    assert device.identity.transaction.state is TransactionState.STAGED
    assert device.record.domain.state is DomainState.VOUCHED
    device.servers["localhost", 9443] = "application"
    device.live_until_active()
    # ... and the registrar hears of a success also then (RFC 8995 §5.9.4)
    assert any(r.operation == "enrollstatus" and r.status for r in device.world.reports)


def test_est_at_another_address_than_the_registrar(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        identities="  - name: ldevid\n    protocols: [{est: {url: 'https://est.example:9443'}}]\n",
    )
    device.servers["est.example", 9443] = "registrar"
    hosts: list[str] = []
    transport = device.environment.transport

    class Noting:
        def open(self, channel: Channel) -> Link:
            hosts.append(channel.host)
            return transport.open(channel)

    Step(replace(device.environment, transport=Noting())).run()
    assert device.active
    assert hosts == ["registrar.example", "est.example", "registrar.example", "est.example"]
    assert device.targets()[-2:] == ["/.well-known/brski/enrollstatus", "/.well-known/est/cacerts"]


def test_a_registrar_at_an_ipv6_address(tmp_path: Path) -> None:
    device = Device(tmp_path, registrars=["[2001:db8::1]:8443"])
    device.servers["2001:db8::1", 8443] = "registrar"
    device.step()
    assert device.active
    assert device.record.domain.registrar == "[2001:db8::1]:8443"
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 2


def test_a_domain_that_vouches_but_does_not_enroll_does_not_hide_the_next_registrar(tmp_path: Path) -> None:
    device = Device(
        tmp_path, registrars=[REGISTRAR, SECOND, "third.example:8443"], faults=["simpleenroll:refuse:2"]
    )
    device.servers["second.example", 8443] = device.servers["third.example", 8443] = "registrar"
    device.live_until_active()
    assert device.record.domain.registrar == "third.example:8443"


def test_many_registrars_that_all_send_us_elsewhere_are_no_circle(tmp_path: Path) -> None:
    names = [f"r{n}.example:8443" for n in range(32)]
    device = Device(
        tmp_path, registrars=names, faults=["requestvoucher:redirect:0:to=https://elsewhere.example:8443/"]
    )
    for n in range(32):
        device.servers[f"r{n}.example", 8443] = "registrar"
    device.servers["elsewhere.example", 8443] = "registrar"
    device.step()
    assert device.record.schedule.attempts == 32


def test_a_server_that_is_busy_is_asked_again_with_the_same_key(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["simpleenroll:status:0:code=503"])
    device.step()
    kept = device.identity.transaction
    assert (kept.state, kept.purpose) == (TransactionState.REQUESTED, Purpose.INITIAL)
    key = kept.key
    step_when_due(device)
    assert device.identity.transaction.key == key
    assert device.keys.made == 1
    device.reface([])
    device.live_until_active()


def test_the_state_directory_may_vanish_between_two_steps(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    shutil.rmtree(device.settings.state_directory)
    device.step()
    assert device.active
    assert device.keys.refs() == {device.identity.credential.key}


# --- the server's patience -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["cacerts", "csrattrs"])
def test_retry_after_is_obeyed_on_errors_too(tmp_path: Path, what: str) -> None:
    device = Device(tmp_path, faults=[f"{what}:status:1:code=503:retry-after=7200"])
    report = device.step()
    assert code_of(device.identity) == "est.unavailable"
    assert timedelta(hours=2) <= report.due - device.clock.now <= timedelta(hours=2.5)
    device.clock.now += timedelta(hours=2) - timedelta(seconds=1)
    asked = len(device.targets())
    device.step()
    assert len(device.targets()) == asked
    device.live_until_active()


def test_a_server_cannot_ask_for_more_patience_than_the_credential_has_life(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface(["cacerts:status:0:code=503:retry-after=345600"])
    device.pass_time(timedelta(days=89))
    report = device.step()
    left = timedelta(days=1)
    assert left * 0.5 < report.due - device.clock.now <= left * 0.9
