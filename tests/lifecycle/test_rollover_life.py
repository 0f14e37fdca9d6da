"""The CA changes its issuing key or its root in the middle of a device's life."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.anchors import OVERLAP, fingerprint
from holdfast.life.record import CredentialState, DomainState, Provenance, TransactionState
from holdfast.wire.model import KeyAlgorithm
from holdfast_sim import ca
from holdfast_sim.ca import Credential, Validity
from holdfast_sim.domain import Domain
from lifecycle.device import Device


def issuer(device: Device) -> str:
    leaf = x509.load_der_x509_certificate(device.identity.credential.chain[0])
    return leaf.issuer.rfc4514_string()


def roots(device: Device) -> dict[bytes, Provenance]:
    return {a.certificate: a.provenance for a in device.record.domain.anchors}


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def new_issuing(domain: Domain, device: Device) -> Domain:
    """The same root with another issuing CA."""
    life = Validity.starting(device.clock.now, timedelta(days=3650))
    name = ca.name("Simulated Owner Issuing CA 2", "Simulated Owner")
    return replace(domain, issuing=domain.root.subordinate(name, life, KeyAlgorithm.P256))


def moved_server(device: Device, *, with_link: bool) -> None:
    """After a change of root the server gets a certificate under the new one, and may send NewWithOld too."""
    domain = device.world.domain
    life = Validity.starting(device.clock.now, timedelta(days=3650))
    old = domain.registrar
    signed = domain.issuing.sign(
        old.certificate.subject, old.key.public_key(), life, list(made_extensions(old.certificate))
    )
    chain = (signed, domain.issuing.certificate, *(domain.links[:1] if with_link else ()))
    device.world.domain = replace(domain, registrar=Credential(chain, old.key))


def made_extensions(certificate: x509.Certificate) -> list[tuple[x509.ExtensionType, bool]]:
    kept = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage)
    return [(e.value, e.critical) for e in certificate.extensions if isinstance(e.value, kept)]


# --- at rest -----------------------------------------------------------------------------------------


def test_a_renewal_after_a_change_of_root_brings_it_by_its_link(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    old = device.world.domain.root.certificate
    device.world.roll_over()
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 2
    assert issuer(device).endswith("Issuing CA G2,O=Simulated Owner")
    assert roots(device) == {
        der(device.world.domain.root.certificate): Provenance.ROLLOVER,
        der(old): Provenance.CACERTS,
    }
    assert device.keys.made == 2


@pytest.mark.parametrize("polls", [0, 2])
@pytest.mark.parametrize("what", ["root", "issuing"])
def test_a_first_enrollment_crosses_a_change_of_ca(tmp_path: Path, what: str, polls: int) -> None:
    device = Device(tmp_path, faults=["simpleenroll:drop-before:1"])
    device.world.est = replace(device.world.est, polls=polls, retry_after=3600)
    device.step()
    assert device.identity.transaction.state is TransactionState.REQUESTED
    key = device.identity.transaction.key
    if what == "root":
        device.world.roll_over()
    else:
        device.world.domain = new_issuing(device.world.domain, device)
    device.live_until_active()
    assert device.identity.credential.key == key, "the same request, judged by what is known now"
    assert device.keys.made == 1
    assert device.record.domain.state is DomainState.VOUCHED
    vouchers = [t for t in device.targets() if t.endswith("requestvoucher")]
    assert len(vouchers) == 1, "no second bootstrap"


@pytest.mark.parametrize("fault", ["simplereenroll:rollover:1"])
def test_a_renewal_crosses_a_change_between_its_question_and_its_answer(tmp_path: Path, fault: str) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface([fault])
    report = device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 2
    assert [t.result for t in report.traces if t.name == "Enroll"] == ["AnchorsChanged", "CertificateIssued"]
    assert device.identity.schedule.trouble is None
    assert device.keys.made == 2


def test_an_issuer_that_nobody_vouches_for_is_asked_about_once_and_refused(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface(["simplereenroll:foreign-ca"])
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 1
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code.startswith("chain.")
    operations = [t.rpartition("/")[2] for t in device.targets()]
    assert operations.count("cacerts") == 2
    assert operations.count("simplereenroll") == 1


def test_a_ca_that_tells_of_new_roots_without_end_is_not_followed_for_ever(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.reface(["simplereenroll:rollover", "simplereenroll:foreign-ca"])
    report = device.step(renew=["ldevid"])
    assert [t.name for t in report.traces].count("Enroll") <= 2
    assert device.identity.credential.state is CredentialState.ACTIVE


# --- the server under the new root -------------------------------------------------------------------


def test_a_server_that_moved_under_the_new_root_is_known_by_the_link_that_it_sends(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.world.roll_over()
    moved_server(device, with_link=True)
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 2
    assert roots(device)[der(device.world.domain.root.certificate)] is Provenance.ROLLOVER


def test_without_a_link_a_server_under_an_unknown_root_is_not_believed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.world.roll_over()
    moved_server(device, with_link=False)
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 1
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == "chain.untrusted"
    assert der(device.world.domain.root.certificate) not in roots(device)


# --- retirement --------------------------------------------------------------------------------------


def test_the_old_root_is_retired_and_an_old_answer_does_not_bring_it_back(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    before = device.world.domain
    device.world.roll_over()
    device.step(renew=["ldevid"])
    moved_server(device, with_link=False)
    device.world.domain = replace(device.world.domain, former=(), links=())
    device.step(renew=["ldevid"])
    assert der(before.root.certificate) in roots(device), "overlap"
    device.pass_time(OVERLAP)
    device.step(renew=["ldevid"])
    assert set(roots(device)) == {der(device.world.domain.root.certificate)}
    assert [r.sha256 for r in device.record.domain.retired] == [fingerprint(der(before.root.certificate))]
    now = device.world.domain
    device.world.domain = replace(now, former=((before.root, before.issuing),))
    device.step(renew=["ldevid"])
    assert set(roots(device)) == {der(now.root.certificate)}
    bundle = (device.files("ldevid").current_directory / "anchors.pem").read_bytes()
    assert bundle.count(b"BEGIN") == 1


def test_three_changes_of_root_in_a_row(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    for generation in range(2, 5):
        device.world.roll_over()
        moved_server(device, with_link=True)
        device.pass_time(timedelta(days=40))
        device.step(renew=["ldevid"])
        assert device.identity.credential.generation == generation, device.identity.schedule.trouble
    assert list(roots(device).values()).count(Provenance.ROLLOVER) == 3
    assert device.record.domain.state is DomainState.VOUCHED


def test_three_changes_while_the_device_was_away(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    for _ in range(3):
        device.world.roll_over()
    moved_server(device, with_link=False)
    domain = device.world.domain
    chain = (*domain.registrar.chain, *domain.links[0::2])  # each NewWithOld on the way
    device.world.domain = replace(domain, registrar=Credential(chain, domain.registrar.key))
    device.step(renew=["ldevid"])
    assert device.identity.credential.generation == 2, device.identity.schedule.trouble
    assert roots(device)[der(device.world.domain.root.certificate)] is Provenance.ROLLOVER
