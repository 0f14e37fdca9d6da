"""``holdfast revoke`` as the worker does it: by every protocol that can, and what the record says then."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from holdfast.cli.reasons import explain
from holdfast.life.record import CredentialState
from holdfast.wire.errors import ConfigError, HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, Moment
from holdfast.wire.revocation.reason import Reason
from holdfast.worker.enrollment import RefusedError
from holdfast.worker.links import Connection
from holdfast.worker.revoking import BY_OPERATOR, Revocation, Revoked
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.world import StandingPolicy
from lifecycle.cuts import PowerCut, cut_after
from lifecycle.device import Device
from lifecycle.test_acme_rung import AcmeDevice

CMC = "{cmc: {url: 'http://registrar.example:8080/cmc'}}"
LADDERS = ["{cmc: {}}", CMC, "{cmp: {}}", "{cmp: {url: 'http://registrar.example:8080'}}", "{est: {}}"]


def device_on(directory: Path, ladder: str, **options: Any) -> Device:
    device = Device(directory, identities=f"  - name: ldevid\n    protocols: [{ladder}]\n", **options)
    device.servers["registrar.example", 8080] = "plain"
    return device


def revoke(device: Device, reason: Reason = Reason.KEY_COMPROMISE) -> Revoked:
    environment = device.environment
    with Connection(environment.transport) as connection:
        revocation = Revocation(environment, connection, device.settings.identities[0])
        return revocation.perform(device.record, reason, now(device))[0]


def now(device: Device) -> Moment:
    return Moment(device.clock.now, device.clock.now, ClockState.TRUSTED)


def leaf(device: Device) -> x509.Certificate:
    return x509.load_der_x509_certificate(device.identity.credential.chain[0])


@pytest.mark.parametrize("ladder", LADDERS)
def test_by_whatever_the_identity_has(tmp_path: Path, ladder: str) -> None:
    device = device_on(tmp_path, ladder)
    device.live_until_active()
    before = leaf(device)
    done = revoke(device)
    assert (done.certificate, done.rung) == (before, device.settings.identities[0].rungs[0])
    assert device.world.revoked == {before.serial_number}
    assert device.identity.credential.state is CredentialState.REVOKED
    device.live_until_active()
    assert leaf(device) != before
    assert leaf(device).serial_number not in device.world.revoked


def test_by_acme(tmp_path: Path) -> None:
    device = AcmeDevice(tmp_path)
    device.live_until_active()
    before = leaf(device)
    revoke(device)
    assert device.world.acme.revoked == {before.serial_number: Reason.KEY_COMPROMISE}
    assert device.identity.credential.state is CredentialState.REVOKED


def test_what_the_record_and_why_say_then(tmp_path: Path) -> None:
    device = device_on(tmp_path, CMC)
    device.live_until_active()
    revoke(device, Reason.SUPERSEDED)
    trouble = device.identity.schedule.trouble
    assert trouble is not None
    assert (trouble.code, trouble.detail) == (BY_OPERATOR, "revoked by cmc on request (superseded)")
    identities = device.settings.identities
    reasons = explain(device.record, device.settings, identities, now(device))
    (reason,) = [r for r in reasons if r.part == "ldevid"]
    said = reason.paragraph(device.clock.now)
    assert "its last one was revoked" in said
    assert BY_OPERATOR in said
    assert "a new certificate is asked for by itself" in said
    device.live_until_active()
    assert device.identity.schedule.trouble is None


def test_the_rung_that_issued_it_is_asked_first(tmp_path: Path) -> None:
    device = device_on(tmp_path, f"{{cmp: {{}}}}, {CMC}", faults=["cmp:status:1:code=404"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmc"
    assert revoke(device).rung == "cmc"


def test_a_server_without_the_operation_is_passed_over(tmp_path: Path) -> None:
    device = device_on(tmp_path, "{est: {}}, {cmp: {}}", faults=["cmc:status:code=501"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "simpleenroll"
    assert revoke(device).rung == "cmp"


def test_what_nobody_can_do(tmp_path: Path) -> None:
    scep = "{scep: {url: 'http://registrar.example:8080/scep', key: {algorithm: rsa2048}}}"
    device = device_on(tmp_path, scep)
    device.live_until_active()
    with pytest.raises(ConfigError, match=r"revoke\.no-protocol"):
        revoke(device)
    alone = device_on(tmp_path / "alone", "{est: {}}", faults=["cmc:status:code=501"])
    alone.live_until_active()
    with pytest.raises(RemoteProtocolError, match=r"cmc\.unsupported"):
        revoke(alone)
    assert alone.active


def test_nothing_to_revoke(tmp_path: Path) -> None:
    device = device_on(tmp_path, CMC, faults=["cmc:status:code=500"])
    device.step()
    with pytest.raises(ConfigError, match=r"revoke\.no-certificate"):
        revoke(device)


FAULTS: list[tuple[str, str, type[HoldfastError]]] = [
    (CMC, "cmc-revoke:refuse", RefusedError),
    (CMC, "cmc-revoke:foreign-signer", TrustError),
    (CMC, "cmc-revoke:wrong-nonce", TrustError),
    (CMC, "cmc-revoke:unsigned", RemoteProtocolError),
    (CMC, "cmc-revoke:simple-instead", RemoteProtocolError),
    ("{cmp: {}}", "cmp-rr:refuse", RefusedError),
    ("{cmp: {}}", "cmp-rr:foreign-signer", TrustError),
    ("{cmp: {}}", "cmp-rr:wrong-nonce", TrustError),
    ("{cmp: {}}", "cmp-rr:unprotected-error", HoldfastError),
]


@pytest.mark.parametrize(("ladder", "fault", "kind"), FAULTS)
def test_what_was_not_said_under_a_signature_changes_nothing(
    tmp_path: Path, ladder: str, fault: str, kind: type[HoldfastError]
) -> None:
    device = device_on(tmp_path, ladder, faults=[fault])
    device.live_until_active()
    before = device.record
    with pytest.raises(kind):
        revoke(device)
    assert device.record == before


def test_a_ca_that_takes_its_time(tmp_path: Path) -> None:
    device = device_on(tmp_path, "{cmp: {}}")
    device.live_until_active()
    device.world.cmp = CmpPolicy(other_polls=2)
    revoke(device)
    assert device.world.revoked


@pytest.mark.parametrize("ladder", [CMC, "{cmp: {}}"])
def test_a_revocation_whose_answer_was_lost(tmp_path: Path, ladder: str) -> None:
    """The record does not know of it. CMP says so when it is asked again, and every CA when it renews."""
    kind = "cmp" if "cmp" in ladder else "cmc"
    device = device_on(tmp_path, ladder)
    device.live_until_active()
    device.reface([f"{kind}:drop-after:1"])
    with pytest.raises(HoldfastError):
        revoke(device)
    assert device.world.revoked
    assert device.active
    if kind == "cmp":
        revoke(device)
        assert device.identity.credential.state is CredentialState.REVOKED
    else:
        with pytest.raises(RefusedError):
            revoke(device)


@pytest.mark.parametrize("ladder", [CMC, "{cmp: {}}"])
def test_a_power_cut_at_any_point_ends_in_a_good_certificate(tmp_path: Path, ladder: str) -> None:
    """Around the message and around the commit. Where the command is not repeated, the CA's own word (OCSP)
    tells the agent what the record does not know."""
    cuts = 0
    for point in range(20):
        device = device_on(tmp_path / str(point), ladder)
        device.world.standing = StandingPolicy("http://status.example")
        device.servers["status.example", 80] = "plain"
        device.live_until_active()
        before = leaf(device)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, [point])
            try:
                revoke(device)
            except PowerCut:
                cuts += 1
            else:
                break
        revoked = before.serial_number in device.world.revoked
        device.pass_time(timedelta(days=2))
        device.live_until_active()
        assert (leaf(device) != before) == revoked, point
        assert device.keys.refs() == {device.identity.credential.key}, point
    assert cuts == 4
