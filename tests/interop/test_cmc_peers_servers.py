"""Our CMC client at a server that is made of BouncyCastle's classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Channel, Plain, TlsTransport
from holdfast.wire import csr
from holdfast.wire.algorithms import spki
from holdfast.wire.cmc import services
from holdfast.wire.cmc.answer import Judge
from holdfast.wire.cmc.client import CmcProtocol
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.conversation import Conversation
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.settings import Form, Possession
from holdfast.wire.cmc.signer import Identity, Nobody, Signer
from holdfast.wire.cmc.site import Site
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    Issued,
    Moment,
    Outcome,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.wire.revocation.reason import Reason
from interop.cmc_peers import REFERENCE, SECRET, BouncyCastleServer, Realm, bouncy_castle_server

pytestmark = pytest.mark.interop

SAN = (x509.DNSName("gateway.example"),)


@dataclass
class Bench:
    """Our client before the server, which knows the realm."""

    realm: Realm
    server: BouncyCastleServer
    protocol: CmcProtocol = field(default_factory=lambda: CmcProtocol(Site("/cmc")))

    @property
    def now(self) -> Moment:
        moment = datetime.now(UTC)
        return Moment(moment, moment, ClockState.TRUSTED)

    def run(self, exchange: Any) -> Any:
        with TlsTransport().open(Channel("127.0.0.1", self.server.port, Plain())) as link:
            return drive(exchange, link)

    def request(self, key: SigningKey, current: tuple[Chain, SigningKey] | None = None) -> EnrollmentRequest:
        """A first enrollment by the maker's identity, or a renewal of *current*."""
        subject = current[0][0].subject if current else pki.name("gateway")
        template = self.protocol.read_wishes(b"")
        return EnrollmentRequest(
            Purpose.REKEY if current else Purpose.INITIAL,
            csr.build(key, subject, template=template, san=SAN),
            key,
            subject,
            self.realm.anchors,
            os.urandom(16),
            os.urandom,
            current=current,
            signer=current or (self.realm.device.chain, self.realm.device.key),
        )

    def enroll(self, req: EnrollmentRequest) -> Outcome:
        outcome: Outcome = self.run(self.protocol.enroll(req, None, self.now))
        for _ in range(4):
            if not isinstance(outcome, Pending):
                break
            outcome = self.run(self.protocol.resume(req, outcome.resume, None, self.now))
        return outcome

    def issued(self, req: EnrollmentRequest) -> Issued:
        outcome = self.enroll(req)
        assert isinstance(outcome, Issued), outcome
        assert spki(outcome.chain[0]) == spki(req.key)
        assert f"issued {outcome.chain[0].serial_number:x}" in self.server.log()
        return outcome

    def conversation(self, signer: Signer) -> Conversation:
        return Conversation(
            self.protocol.site, signer, Judge(self.realm.anchors), os.urandom, 4711, b"to be returned"
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Realm, BouncyCastleServer]]:
    directory = tmp_path_factory.mktemp("bc")
    realm = Realm.create()
    realm.write(directory)
    with bouncy_castle_server(directory) as server:
        yield realm, server


@pytest.fixture
def bench(running: tuple[Realm, BouncyCastleServer]) -> Bench:
    return Bench(*running)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
def test_an_enrollment_by_the_makers_identity(bench: Bench, form: Form, kind: pki.KeyKind) -> None:
    bench.protocol = replace(bench.protocol, form=form)

    issued = bench.issued(bench.request(pki.new_key(kind)))

    names = issued.chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gateway.example"]
    assert "initial" in bench.server.log()


@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
def test_an_enrollment_by_secret(bench: Bench, form: Form) -> None:
    """Signed by the new key, named by its identifier; identityProofV2 and popLinkWitnessV2 hold."""
    shared = SharedSecret(SECRET.encode(), REFERENCE)
    bench.protocol = replace(bench.protocol, form=form, secret=shared)
    before = bench.server.log().count("identified by secret")

    bench.issued(bench.request(pki.new_key()))

    assert bench.server.log().count("identified by secret") == before + 1
    assert bench.server.log()[-3] == "signed by key"


def test_a_wrong_secret(bench: Bench) -> None:
    bench.protocol = replace(bench.protocol, secret=SharedSecret(b"another secret", REFERENCE))

    outcome = bench.enroll(bench.request(pki.new_key()))

    assert isinstance(outcome, Rejected)
    assert "badIdentity" in outcome.code
    assert "the identity proof is wrong" in outcome.detail


@pytest.mark.parametrize(("path", "step"), [("/pending/cmc", "pending"), ("/confirm/cmc", "confirmed")])
def test_the_longer_ways(bench: Bench, path: str, step: str) -> None:
    bench.protocol = replace(bench.protocol, site=Site(path))
    before = [line.split()[0] for line in bench.server.log()].count(step)

    bench.issued(bench.request(pki.new_key()))

    assert [line.split()[0] for line in bench.server.log()].count(step) == before + 1


def test_a_key_that_decrypts(bench: Bench) -> None:
    bench.protocol = replace(bench.protocol, possession=Possession.DECRYPTION)

    bench.issued(bench.request(pki.new_key("rsa2048")))

    assert bench.server.log()[-3:-1] == ["signed by certificate", "decrypted"]


def test_a_renewal_questions_and_a_revocation(bench: Bench) -> None:
    first = bench.request(pki.new_key())
    current = (bench.issued(first).chain, first.key)
    renewal = bench.request(pki.new_key(), current)

    renewed = bench.issued(renewal).chain[0]

    assert "renewal" in bench.server.log()
    identity = Identity((renewed,), renewal.key)
    ca = bench.realm.authority.certificate
    asked = bench.run(
        services.certificate(bench.conversation(identity), ca, renewed.serial_number, bench.now)
    )
    assert asked == renewed
    wanted = RevokeRequest(CertificateId.of(renewed), Reason.SUPERSEDED)
    stranger = Identity(bench.realm.device.chain, bench.realm.device.key)
    refused = bench.run(services.revoke(bench.conversation(stranger), wanted, bench.now))
    assert isinstance(refused, Rejected)
    done = bench.run(services.revoke(bench.conversation(identity), wanted, bench.now))
    assert isinstance(done, services.Revoked)
    assert f"revoked {renewed.serial_number:x} reason 4 by signature" in bench.server.log()
    crl = bench.run(services.revocation_list(bench.conversation(stranger), ca, bench.now))
    assert crl.get_revoked_certificate_by_serial_number(renewed.serial_number) is not None


def test_a_revocation_by_a_secret_alone(bench: Bench) -> None:
    """Nobody signs: the secret in the request is all the proof (RFC 5272 §6.11)."""
    certificate = bench.issued(bench.request(pki.new_key())).chain[0]
    wanted = RevokeRequest(CertificateId.of(certificate), Reason.KEY_COMPROMISE, secret=SECRET.encode())

    done = bench.run(services.revoke(bench.conversation(Nobody()), wanted, bench.now))

    assert isinstance(done, services.Revoked)
    assert f"revoked {certificate.serial_number:x} reason 1 by secret" in bench.server.log()


def test_an_unknown_anchor(bench: Bench) -> None:
    """What the server signed is not believed under another anchor, and nothing is kept."""
    other = replace(bench.request(pki.new_key()), anchors=(pki.ca("another CA").certificate,))

    with pytest.raises(HoldfastError) as caught:
        bench.enroll(other)

    assert caught.value.code.startswith("chain.")
