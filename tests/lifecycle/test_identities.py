"""Several identities of one device: each with its own names, key, servers and fate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.life import events as ev
from holdfast.life.record import CredentialState, DeviceRecord, Identity, TransactionState
from holdfast.wire.errors import LocalProtocolError, StateError
from holdfast.wire.model import ClockState
from holdfast.worker import step as step_module
from holdfast.worker.dropped import GRACE
from holdfast.worker.step import Step
from lifecycle.device import SERIAL, Device
from lifecycle.town import Town

FACTS = {"mac": "02005e100001", "hostname": "gw-7"}

THREE = """\
  - name: management
    protocols: [{est: {url: 'https://a.example'}}]
  - name: mqtt
    protocols: [{est: {url: 'https://b.example'}}]
    key: {algorithm: p384}
    subject: {common-name: 'app-{serial}', organization: Example}
    san:
      dns: ['{hostname}.gw.example', '{mac}.gw.example']
      uri: ['urn:dev:mac:{mac}']
      ip: [192.0.2.7, '2001:db8::7']
      email: ['{serial}@gw.example']
    renew: {fraction: 0.3, same-key: true}
  - name: dot1x
    protocols: [{est: {url: 'https://c.example'}}]
    key: {algorithm: rsa2048}
    subject: {common-name: '{mac}'}
"""


def town(directory: Path, identities: str = THREE, **options: object) -> Town:
    made = Town(directory, identities=identities, **options)
    made.facts = FACTS
    return made


def leaf(device: Device, name: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(device.record.identity(name).credential.chain[0])


def states(device: Device) -> dict[str, CredentialState]:
    return {i.name: i.credential.state for i in device.record.identities}


def test_each_identity_has_its_own_names_and_key(tmp_path: Path) -> None:
    device = town(tmp_path)
    device.step()
    assert leaf(device, "management").subject.rfc4514_string() == f"CN={SERIAL}"
    mqtt = leaf(device, "mqtt")
    assert mqtt.subject.rfc4514_string() == f"CN=app-{SERIAL},O=Example"
    san = mqtt.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["gw-7.gw.example", "02005e100001.gw.example"]
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:dev:mac:02005e100001"]
    assert san.get_values_for_type(x509.IPAddress) == [ip_address("192.0.2.7"), ip_address("2001:db8::7")]
    assert san.get_values_for_type(x509.RFC822Name) == [f"{SERIAL}@gw.example"]
    assert leaf(device, "dot1x").subject.rfc4514_string() == "CN=02005e100001"
    keys = [leaf(device, name).public_key() for name in ("management", "mqtt", "dot1x")]
    assert isinstance(keys[0], ec.EllipticCurvePublicKey)
    assert isinstance(keys[1], ec.EllipticCurvePublicKey)
    assert [k.key_size for k in keys] == [256, 384, 2048]
    assert isinstance(keys[2], rsa.RSAPublicKey)
    assert len(device.keys.refs()) == 3


def test_each_identity_has_its_own_schedule_and_renewal(tmp_path: Path) -> None:
    device = town(tmp_path)
    device.step()
    generations: dict[str, int] = {}
    while device.record.identity("mqtt").credential.generation == 1:
        device.pass_time(timedelta(days=1))
        device.step()
        generations = {i.name: i.credential.generation for i in device.record.identities}
    assert generations["mqtt"] == 2
    assert 1 in generations.values()
    assert (
        leaf(device, "mqtt").public_key().public_numbers()
        == device.keys.load(device.record.identity("mqtt").credential.key)
        .signer()
        .public_key()
        .public_numbers()
    )


@pytest.mark.parametrize(
    "faults",
    [
        ["registrar:swap-certificate"],
        ["cacerts:status:0:code=500"],
        ["simpleenroll:key-mismatch"],
        ["simpleenroll:status:0:code=403"],
        ["cacerts:slow:0:seconds=600"],
        ["cacerts:garbage"],
        None,
    ],
    ids=lambda f: f[0] if f else "dead",
)
@pytest.mark.parametrize("host", ["a.example", "b.example"])
def test_one_identity_s_servers_do_not_hold_up_the_others(
    tmp_path: Path, faults: Sequence[str] | None, host: str
) -> None:
    device = town(tmp_path, faults={host: faults or ()})
    device.down = set() if faults else {host}
    victim = {"a.example": "management", "b.example": "mqtt"}[host]
    others = {"management", "mqtt", "dot1x"} - {victim}
    for _ in range(8):
        report = device.step()
        device.clock.now = max(device.clock.now, report.due)
    assert {name for name, state in states(device).items() if state is CredentialState.ACTIVE} == others
    entry = device.record.identity(victim)
    assert entry.schedule.trouble is not None
    assert entry.schedule.due is not None
    began = device.clock.now
    while device.clock.now < began + timedelta(days=80):
        device.pass_time(timedelta(days=4))
        device.step()
    assert all(device.record.identity(name).credential.generation > 1 for name in others)
    device.down = set()
    device.rebuild({})
    device.pass_time(timedelta(days=2))
    device.step()
    assert set(states(device).values()) == {CredentialState.ACTIVE}


def test_an_identity_that_failed_comes_after_the_others(tmp_path: Path) -> None:
    device = town(tmp_path)
    device.down = {"a.example"}
    device.step()
    device.pass_time(timedelta(minutes=5))
    report = device.step(renew=["management", "mqtt", "dot1x"])
    order = list(dict.fromkeys(t.identity for t in report.traces if t.identity))
    assert order == ["mqtt", "dot1x", "management"]


def test_a_mistake_of_ours_in_one_life_does_not_end_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = town(tmp_path)
    real = step_module.decide

    def decide(record: DeviceRecord, event: object, now: object, *, identity: str = "") -> object:
        if identity == "management" and isinstance(event, ev.OfferTaken):
            raise LocalProtocolError("machine.impossible", "a bug")
        return real(record, event, now, identity=identity)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "decide", decide)
    device.step()
    assert states(device)["mqtt"] is CredentialState.ACTIVE
    trouble = device.record.identity("management").schedule.trouble
    assert trouble is not None
    assert trouble.code == "machine.impossible"


def test_a_fact_that_is_missing_is_trouble_of_that_identity_alone(tmp_path: Path) -> None:
    device = town(tmp_path)
    device.facts = {"hostname": "gw-7"}
    device.step()
    assert states(device)["management"] is CredentialState.ACTIVE
    trouble = device.record.identity("mqtt").schedule.trouble
    assert trouble is not None
    assert trouble.code == "config.template"


# --- identities that left the configuration -------------------------------------------------------------


TWO = """\
  - name: ldevid
    protocols: [{est: {}}]
  - name: second
    protocols: [{est: {}}]
"""


def drop_second(device: Device) -> None:
    path = device.directory / "holdfast.yaml"
    path.write_text(path.read_text().replace(TWO.split("\n", 2)[2], ""))
    device.reload()


def bring_second_back(device: Device) -> None:
    path = device.directory / "holdfast.yaml"
    path.write_text(path.read_text() + TWO.split("\n", 2)[2])
    device.reload()


def home_of(device: Device, name: str) -> Path:
    return device.settings.state_directory / "identities" / name


def test_a_dropped_identity_stays_for_a_while_and_then_goes_with_files_and_key(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO)
    device.step()
    key = device.record.identity("second").credential.key
    drop_second(device)
    report = device.step()
    assert device.record.identity("second").dropped == device.clock.now
    assert report.due <= device.clock.now + GRACE
    device.pass_time(GRACE - timedelta(seconds=1))
    device.step()
    assert key in device.keys.refs()
    assert (home_of(device, "second") / "current" / "chain.pem").exists()
    device.pass_time(timedelta(seconds=1))
    device.step()
    assert key not in device.keys.refs()
    assert not home_of(device, "second").exists()
    assert [i.name for i in device.record.identities] == ["ldevid"]
    assert device.active


def test_a_dropped_identity_that_comes_back_in_time_is_as_it_was(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO)
    device.step()
    before = device.record.identity("second")
    drop_second(device)
    device.step()
    device.pass_time(timedelta(days=6))
    bring_second_back(device)
    device.step()
    assert device.record.identity("second") == before
    assert before.dropped is None


def test_what_a_dropped_identity_had_under_way_ends_at_once(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO)
    device.world.est = replace(device.world.est, polls=9, retry_after=3600)
    device.step()
    assert device.record.identity("second").transaction.state is TransactionState.PENDING
    made = device.record.identity("second").transaction.key
    drop_second(device)
    device.step()
    assert made not in device.keys.refs()
    assert [i.name for i in device.record.identities] == ["ldevid"], "it had nothing that anybody would miss"


def test_files_in_a_directory_of_their_own_are_found_without_the_configuration(tmp_path: Path) -> None:
    elsewhere = tmp_path / "mosquitto"
    block = TWO.replace("  - name: second\n", f"  - name: second\n    deploy: {{directory: {elsewhere}}}\n")
    device = Device(tmp_path / "device", identities=block)
    device.step()
    assert (elsewhere / "second" / "current").exists()
    path = device.directory / "holdfast.yaml"
    path.write_text(path.read_text().replace(block.split("\n", 2)[2], ""))
    device.reload()
    device.step()
    (elsewhere / "second" / "notes").write_text("mine")
    device.pass_time(GRACE)
    device.step()
    assert [p.name for p in (elsewhere / "second").iterdir()] == ["notes"], "only what we wrote goes"
    assert device.record.identity("second") == Identity("second")


def test_a_clock_that_nobody_set_takes_nothing_away(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=TWO)
    device.step()
    drop_second(device)
    device.step()
    device.clock.state = ClockState.FLOOR_ONLY
    device.pass_time(GRACE * 100)
    device.step()
    assert (home_of(device, "second") / "current").exists()


def test_a_key_is_not_destroyed_while_files_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path, identities=TWO)
    device.step()
    key = device.record.identity("second").credential.key
    drop_second(device)
    device.step()
    device.pass_time(GRACE)

    def refuse(_files: CredentialFiles) -> None:
        raise StateError("credentials.read-only", "no")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialFiles, "remove", refuse)
        device.step()
    assert key in device.keys.refs()
    assert device.record.identity("second").schedule.trouble is not None
    device.pass_time(timedelta(hours=7))
    device.step()
    assert key not in device.keys.refs()


class Cut(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("before", [True, False])
def test_a_power_cut_while_an_identity_goes_leaves_nothing_behind(
    tmp_path: Path, at: int, before: bool
) -> None:
    device = Device(tmp_path, identities=TWO)
    device.step()
    drop_second(device)
    device.step()
    device.pass_time(GRACE)

    class Store(StateStore):
        left = at

        def commit(self, record: DeviceRecord) -> None:
            Store.left -= 1
            if Store.left == 0 and before:
                raise Cut
            super().commit(record)
            if Store.left == 0:
                raise Cut

    with suppress(Cut):
        Step(replace(device.environment, store=Store(device.settings.state_directory))).run()
    device.step()
    assert device.keys.refs() == {device.identity.credential.key}
    assert not home_of(device, "second").exists()
    assert [i.name for i in device.record.identities] == ["ldevid"]
