"""The own certificate's status through whole lives: failing soft, believing only what is signed and fresh."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.cli.main import main
from holdfast.host.config import RevocationSettings
from holdfast.life.record import CredentialState, DomainState
from holdfast_sim.world import StandingPolicy
from lifecycle.device import Device

STATUS = ("status.example", 80)


def device_at(directory: Path, **policy: bool) -> Device:
    device = Device(directory)
    device.world.standing = StandingPolicy("http://status.example", **policy)  # type: ignore[arg-type]
    device.servers[STATUS] = "plain"
    return device


def asked(device: Device) -> list[str]:
    return [t for t in device.targets() if t in {"/ocsp", "/crl"}]


def revoke(device: Device) -> None:
    device.world.revoked.add(device.world.issued[-1].certificate.serial_number)


def look(device: Device) -> None:
    """The next time that the status is due."""
    device.clock.now = max(device.clock.now, device.identity.standing.due or device.clock.now)
    device.step()


@pytest.mark.parametrize(("ocsp", "crl"), [(True, True), (True, False), (False, True)])
def test_a_good_certificate_is_asked_about_once_a_day_and_idling_writes_nothing(
    tmp_path: Path, ocsp: bool, crl: bool
) -> None:
    device = device_at(tmp_path, ocsp=ocsp, crl=crl)
    report = device.step()
    place = "/ocsp" if ocsp else "/crl"
    assert asked(device) == [place]
    assert timedelta(hours=18) <= report.due - device.clock.now <= timedelta(hours=30)
    record = device.settings.state_directory / "record"
    written = (record.stat().st_ino, record.read_bytes())
    for _ in range(17):
        device.pass_time(timedelta(hours=1))
        device.step()
    assert (record.stat().st_ino, record.read_bytes()) == written
    for _ in range(40):
        device.clock.now = device.step().due
        assert device.active
    days = (device.clock.now - device.world.issued[0].at) / timedelta(days=1)
    assert len(asked(device)) <= days * 1.5 + 2


def test_an_interval_of_weeks_is_kept(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        identities="  - name: ldevid\n    protocols: [{est: {}}]\n    revocation: {interval-hours: 480}\n",
    )
    device.world.standing = StandingPolicy("http://status.example", life=timedelta(days=40))
    device.servers[STATUS] = "plain"
    report = device.step()
    assert timedelta(days=15) <= report.due - device.clock.now <= timedelta(days=25)
    for _ in range(14):
        device.pass_time(timedelta(days=1))
        device.step()
    assert asked(device) == ["/ocsp"], "no step before the time asks"


@pytest.mark.parametrize(("ocsp", "crl"), [(True, False), (False, True)])
@pytest.mark.parametrize("delegate", [False, True])
def test_a_revoked_certificate_is_replaced_by_way_of_the_idevid(
    tmp_path: Path, ocsp: bool, crl: bool, delegate: bool
) -> None:
    device = device_at(tmp_path, ocsp=ocsp, crl=crl, delegate=delegate)
    device.step()
    held = device.identity.credential
    revoke(device)
    look(device)
    assert device.active
    assert device.identity.credential.key != held.key
    assert device.identity.credential.generation == 2
    assert [r.operation for r in device.world.issued] == ["simpleenroll", "simpleenroll"]
    assert device.keys.refs() == {device.identity.credential.key}
    assert device.files("ldevid").current() == 2


def test_while_the_ca_does_not_answer_the_credential_is_revoked_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = device_at(tmp_path)
    device.step()
    revoke(device)
    device.reface(["simpleenroll:status:0:code=503", "cacerts:status:0:code=503"])
    look(device)
    assert device.identity.credential.state is CredentialState.REVOKED
    assert device.files("ldevid").current() == 1, "other programs keep what they have"
    assert device.identity.schedule.due is not None
    assert main(["--config", str(tmp_path / "holdfast.yaml"), "why"]) != 0
    assert "revoked" in capsys.readouterr().out
    device.reface([])
    device.live_until_active()


def test_a_renewal_under_way_is_dropped_with_the_certificate_that_vouches_for_it(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    device.step()
    device.reface(["simplereenroll:pending:0:retry-after=86400"])
    device.step(renew=["ldevid"])
    request = device.identity.transaction.csr
    revoke(device)
    look(device)
    assert device.active
    assert device.keys.made == 3
    assert request
    assert device.keys.refs() == {device.identity.credential.key}
    assert device.world.issued[-1].operation == "simpleenroll"


def test_a_device_that_is_refused_as_well_asks_again_whose_it_is(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    device.step()
    revoke(device)
    device.reface(["simpleenroll:refuse:1"])
    look(device)
    assert device.record.domain.state is DomainState.NONE
    device.live_until_active()
    assert len(device.world.audit) == 2


@pytest.mark.parametrize(
    "fault",
    [
        "ocsp:wrong-nonce",
        "ocsp:stale",
        "ocsp:future",
        "ocsp:other-certificate",
        "ocsp:unknown",
        "ocsp:try-later",
        "ocsp:foreign-signer",
        "ocsp:tampered",
        "ocsp:delegate-no-usage",
        "ocsp:delegate-foreign",
        "ocsp:delegate-expired",
        "ocsp:status:0:code=500",
        "ocsp:wrong-type",
        "ocsp:garbage",
        "ocsp:truncated",
        "ocsp:oversized:size=2000000",
        "ocsp:drop-before",
        "ocsp:slow:seconds=600",
        "ocsp:redirect",
    ],
)
@pytest.mark.parametrize("revoked", [False, True])
def test_an_answer_that_cannot_be_verified_is_none_and_the_list_is_asked(
    tmp_path: Path, fault: str, revoked: bool
) -> None:
    """Whatever it says: neither "good" nor "revoked" is believed, and the next place is asked."""
    device = device_at(tmp_path)
    device.step()
    held = device.identity.credential
    if revoked:
        revoke(device)
    lies = [] if revoked or fault == "ocsp:unknown" else ["ocsp:says-revoked"]
    spoiled = [fault, *lies]
    device.reface(spoiled)
    before = len(asked(device))
    look(device)
    assert asked(device)[before:][:2] == ["/ocsp", "/crl"]
    assert (device.identity.credential == held) == (not revoked)


@pytest.mark.parametrize(
    "fault",
    [
        "crl:stale",
        "crl:future",
        "crl:other-issuer",
        "crl:foreign-signer",
        "crl:delta",
        "crl:for-cas",
        "crl:garbage",
        "crl:oversized:size=2000000",
        "crl:status:0:code=404",
    ],
)
def test_a_list_that_cannot_be_verified_is_none(tmp_path: Path, fault: str) -> None:
    device = device_at(tmp_path, ocsp=False)
    device.step()
    revoke(device)
    device.reface([fault])
    look(device)
    assert device.active
    standing = device.identity.standing
    assert standing.attempts == 1
    assert standing.trouble is not None
    device.reface([])
    look(device)
    assert device.identity.credential.generation == 2


def test_nobody_there_is_no_reason_for_anything(tmp_path: Path) -> None:
    """Failing soft: years without a responder cost nothing but a bounded number of attempts."""
    device = device_at(tmp_path)
    del device.servers[STATUS]
    device.step()
    assert device.active
    writes = 0
    end = device.clock.now + timedelta(days=10)
    while device.clock.now < end:
        device.clock.now = device.step().due
        writes += 1
    assert device.active
    assert device.identity.credential.generation <= 2
    assert writes <= 10 * 2 + 8
    assert device.identity.schedule.trouble is None


def test_a_certificate_that_names_no_place_costs_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)
    report = device.step()
    assert device.identity.standing.due is None
    assert report.due > device.clock.now + timedelta(days=2)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    identities = tuple(
        replace(i, revocation=RevocationSettings(check=False)) for i in device.settings.identities
    )
    device.settings = replace(device.settings, identities=identities)
    device.step()
    assert asked(device) == []
    assert device.active


def test_no_answer_leaves_the_request_for_the_other_identities(tmp_path: Path) -> None:
    """The status is asked on a connection of its own, without our certificate."""
    device = device_at(tmp_path)
    device.step()
    requests = [e for e in device.site.transcript if e.target == "/ocsp"]
    assert requests
    assert {e.client for e in requests} == {"anonymous"}


def test_status_tells_when_it_was_not_possible_to_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = device_at(tmp_path)
    del device.servers[STATUS]
    device.step()
    assert main(["--config", str(tmp_path / "holdfast.yaml"), "status", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["identities"]
    assert entry["revocation"]["trouble"]["code"] == "transport.unreachable"
    assert entry["revocation"]["failed_attempts"] == 1
    assert entry["revocation"]["next_attempt"]
