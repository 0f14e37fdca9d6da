"""Each thing that a server may do wrong, at the level of the whole device.

The device never trusts, says which check failed, keeps no key that nothing names, tells the registrar where
the standard wants that, and is enrolled as soon as the server behaves.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.life.record import CredentialState, DomainState, TransactionState
from holdfast.wire.model import CsrTemplate, KeyAlgorithm
from holdfast.worker.setbacks import EARLY_ATTEMPTS
from holdfast_sim.world import EstPolicy
from lifecycle.device import Device

VOUCHERS = {
    "wrong-nonce": "voucher.nonce",
    "nonceless": "voucher.nonceless",
    "expired": "voucher.nonceless",
    "nonce-and-expires": "voucher.freshness",
    "no-freshness": "voucher.freshness",
    "wrong-serial": "voucher.serial-number",
    "no-serial": "voucher.serial-number",
    "wrong-aki": "voucher.idevid-issuer",
    "wrong-pin": "voucher.registrar-chain",
    "no-pin": "voucher.pinned-domain-cert",
    "garbage-pin": "voucher.pinned-domain-cert",
    "future-created-on": "voucher.created-on",
    "assertion:value=agent-proximity": "voucher.assertion",
    "foreign-signer": "voucher.signer-chain",
    "idevid-signer": "voucher.signer-is-device",
    "tampered": "voucher.signature",
    "wrong-type": "network.captive-portal",
    "no-type": "voucher.media-type",
    "empty": "voucher.cms",
    "garbage": "voucher.cms",
    "cut-der": "voucher.cms",
}
VOUCHER_ANSWERS = {
    "status:code=404": "registrar.unknown-device",
    "status:code=403": "registrar.forbidden",
    "status:code=500": "registrar.failed",
    "redirect": "voucher.redirect",
    "truncated": "transport.truncated",
    "oversized:size=2000000": "http.too-large",
    "drop-before": "transport.closed",
    "drop-after": "transport.closed",
    "slow:seconds=600": "transport.timeout",
}
ISSUES = {
    "key-mismatch": "est.key-mismatch",
    "two-leaves": "est.several-certificates",
    "no-certificates": "cms.no-certificates",
    "issued-ca": "chain.is-ca",
    "foreign-ca": "chain.untrusted",
    "issued-expired": "chain.expired",
    "wrong-usage": "chain.usage",
    "wrong-type": "est.content-type",
    "no-type": "est.content-type",
    "empty": "est.body-empty",
    "garbage": "est.body-base64",
    "non-der": "cms.syntax",
    "cut-der": "cms.syntax",
}
ENROLL_ANSWERS = {
    "refuse": "est.unauthorized",
    "status:code=400": "est.rejected",
    "status:code=500": "est.unavailable",
    "redirect": "est.redirects",
    "truncated": "transport.truncated",
    "oversized:size=2000000": "http.too-large",
    "drop-before": "transport.closed",
    "drop-after": "transport.closed",
}


def refused(device: Device, code: str) -> None:
    """The device trusts nothing, names the check, and comes back later by itself."""
    report = device.step()
    record = device.record
    assert not device.active
    assert device.identity.credential.chain == ()
    trouble = device.identity.schedule.trouble or record.schedule.trouble
    assert trouble is not None
    assert trouble.code == code
    assert record.schedule.due or device.identity.schedule.due
    assert device.keys.refs() <= record.key_refs()
    assert timedelta(0) < report.due - device.clock.now <= timedelta(hours=6)


def recovers(device: Device) -> None:
    device.reface([])
    device.live_until_active()
    assert device.keys.refs() == {device.identity.credential.key}


@pytest.mark.parametrize(("fault", "code"), VOUCHERS.items())
def test_a_voucher_that_breaks_one_rule_vouches_for_nobody(tmp_path: Path, fault: str, code: str) -> None:
    device = Device(tmp_path, faults=[f"requestvoucher:{fault}"])
    refused(device, code)
    assert device.record.domain.state is DomainState.NONE
    assert device.record.domain.anchors == ()
    assert device.keys.made == 0
    statuses = [r for r in device.world.reports if r.operation == "voucher_status"]
    assert [r.status for r in statuses] == [False]
    assert code in f"{statuses[0].reason} {statuses[0].context}"
    assert not any("/est/" in t for t in device.targets())
    recovers(device)


@pytest.mark.parametrize(("fault", "code"), VOUCHER_ANSWERS.items())
def test_a_registrar_that_gives_no_voucher_gets_no_trust(tmp_path: Path, fault: str, code: str) -> None:
    device = Device(tmp_path, faults=[f"requestvoucher:{fault}"])
    refused(device, code)
    assert device.record.domain.anchors == ()
    recovers(device)


@pytest.mark.parametrize(("fault", "code"), ISSUES.items())
def test_a_wrong_certificate_is_not_taken(tmp_path: Path, fault: str, code: str) -> None:
    device = Device(tmp_path, faults=[f"simpleenroll:{fault}"])
    refused(device, code)
    assert device.identity.transaction.state is TransactionState.NONE
    assert device.keys.refs() == frozenset()
    failures = [r for r in device.world.reports if r.operation == "enrollstatus"]
    assert [r.status for r in failures] == [False]
    assert code in f"{failures[0].reason} {failures[0].context}"
    recovers(device)


def test_a_certificate_that_is_not_valid_yet_is_asked_for_again_with_the_same_key(tmp_path: Path) -> None:
    """PROTOCOLS §11: our clock may be behind. Bounded: a CA that lies on is treated as any other."""
    device = Device(tmp_path, faults=["simpleenroll:issued-future"])
    refused(device, "chain.not-yet-valid")
    kept = device.identity.transaction
    assert kept.state is TransactionState.REQUESTED
    assert device.record.domain.state is DomainState.VOUCHED
    for _ in range(EARLY_ATTEMPTS - 2):
        device.clock.now = device.identity.schedule.due or device.clock.now
        device.step()
        assert device.identity.transaction.key == kept.key
        assert device.identity.transaction.csr == kept.csr
    assert device.keys.refs() == {kept.key}
    device.clock.now = device.identity.schedule.due or device.clock.now
    device.step()
    assert device.identity.transaction.state is TransactionState.NONE
    assert device.keys.refs() == frozenset()
    failures = [r for r in device.world.reports if r.operation == "enrollstatus"]
    assert [r.status for r in failures] == [False]
    recovers(device)


def test_a_clock_that_catches_up_takes_the_key_that_waited(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["simpleenroll:issued-future:2"])
    device.step()
    key = device.identity.transaction.key
    device.live_until_active()
    assert device.identity.credential.key == key
    assert device.keys.made == 1


@pytest.mark.parametrize(("fault", "code"), ENROLL_ANSWERS.items())
def test_no_certificate_no_credential(tmp_path: Path, fault: str, code: str) -> None:
    device = Device(tmp_path, faults=[f"simpleenroll:{fault}"])
    refused(device, code)
    recovers(device)


@pytest.mark.parametrize("operation", ["cacerts", "csrattrs"])
@pytest.mark.parametrize(
    ("fault", "code"),
    {
        "status:code=500": "est.unavailable",
        "wrong-type": "est.content-type",
        "garbage": "est.body-base64",
        "truncated": "transport.truncated",
        "oversized:size=2000000": "http.too-large",
        "drop-after": "transport.closed",
    }.items(),
)
def test_ca_certificates_and_wishes_that_cannot_be_read(
    tmp_path: Path, operation: str, fault: str, code: str
) -> None:
    device = Device(tmp_path, faults=[f"{operation}:{fault}"])
    device.world.est = EstPolicy(template=CsrTemplate(key=KeyAlgorithm.P384))
    refused(device, code)
    assert device.record.domain.state is DomainState.VOUCHED
    assert device.keys.made == 0
    recovers(device)


@pytest.mark.parametrize("fault", ["unknown-leaf", "id-data"])
def test_what_is_harmless_is_tolerated(tmp_path: Path, fault: str) -> None:
    device = Device(tmp_path, faults=[f"requestvoucher:{fault}"])
    device.step()
    assert device.active


@pytest.mark.parametrize("fault", ["extra-chain", "reordered-chain", "unwrapped", "crlf", "wrong-encoding"])
def test_what_est_servers_do_in_the_wild_is_tolerated(tmp_path: Path, fault: str) -> None:
    device = Device(tmp_path, faults=[f"simpleenroll:{fault}"])
    device.step()
    assert device.active


def test_a_renewal_that_fails_leaves_the_credential_alone(tmp_path: Path) -> None:
    for fault, code in ISSUES.items():
        directory = tmp_path / fault
        directory.mkdir()
        device = Device(directory)
        device.step()
        held = device.identity.credential
        device.reface([f"simplereenroll:{fault}"])
        device.step(renew=["ldevid"])
        assert device.identity.credential == held, fault
        assert device.identity.credential.state is CredentialState.ACTIVE
        assert device.identity.schedule.trouble is not None, fault
        assert device.identity.schedule.trouble.code == code, fault
        assert device.record.domain.state is DomainState.VOUCHED
        assert device.keys.refs() == {held.key}, fault
