"""Our CMC client at Dogtag CA, and Dogtag's own CMC tools at our simulator."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Anchored, Channel, TlsTransport
from holdfast.wire import csr
from holdfast.wire.algorithms import spki
from holdfast.wire.cmc import services
from holdfast.wire.cmc.answer import Judge
from holdfast.wire.cmc.client import CmcProtocol
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.conversation import Conversation
from holdfast.wire.cmc.settings import Form
from holdfast.wire.cmc.signer import Identity
from holdfast.wire.cmc.site import FULL_REQUEST, Site
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    Issued,
    Moment,
    Outcome,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.world import World
from interop.dogtag import AGENT, Dogtag, Tools, dogtag, tools
from interop.test_cmc_peers_clients import SERIAL, simulator

pytestmark = pytest.mark.interop

FULL, HOLDER = "/ca/ee/ca/profileSubmitCMCFull", "/ca/ee/ca/profileSubmitUserSignedCMCFull"
EC = f"{FULL}?profileId=caECFullCMCUserCert"
SUBJECT = x509.Name.from_rfc4514_string("CN=gateway,UID=gw7")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dogtag]:
    with dogtag(tmp_path_factory.mktemp("dogtag")) as running:
        yield running


@dataclass
class Bench:
    """Our client before Dogtag; TLS shows the certificate that signs, as Dogtag wants it."""

    server: Dogtag
    protocol: CmcProtocol = field(default_factory=lambda: CmcProtocol(Site(EC)))
    anonymous: bool = False

    @property
    def now(self) -> Moment:
        moment = datetime.now(UTC)
        return Moment(moment, moment, ClockState.TRUSTED)

    def run(self, exchange: Any, client: tuple[Chain, SigningKey]) -> Any:
        def check(chain: Chain) -> None:  # its certificate has no subjectAltName, so no name is compared
            chain[0].verify_directly_issued_by(self.server.authority)

        channel = Channel("localhost", self.server.port, Anchored(check), None if self.anonymous else client)
        with TlsTransport().open(channel) as link:
            return drive(exchange, link)

    def request(self, key: SigningKey, current: tuple[Chain, SigningKey] | None = None) -> EnrollmentRequest:
        subject = current[0][0].subject if current else SUBJECT
        return EnrollmentRequest(
            Purpose.REKEY if current else Purpose.INITIAL,
            csr.build(key, subject, template=self.protocol.read_wishes(b"")),
            key,
            subject,
            (self.server.authority,),
            os.urandom(16),
            os.urandom,
            current=current,
            signer=current or self.server.agent,
        )

    def enroll(self, req: EnrollmentRequest) -> Outcome:
        assert req.signer is not None
        outcome: Outcome = self.run(self.protocol.enroll(req, None, self.now), req.signer)
        return outcome

    def issued(self, req: EnrollmentRequest) -> Issued:
        outcome = self.enroll(req)
        assert isinstance(outcome, Issued), outcome
        assert spki(outcome.chain[0]) == spki(req.key)
        assert self.server.status_of(outcome.chain[0].serial_number) == "VALID"
        return outcome

    def conversation(self, site: str, who: tuple[Chain, SigningKey]) -> Conversation:
        judge = Judge((self.server.authority,))
        return Conversation(Site(site), Identity(*who), judge, os.urandom, 4711, b"to be returned")


@pytest.fixture
def bench(server: Dogtag) -> Bench:
    return Bench(server)


@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
@pytest.mark.parametrize(("kind", "path"), [("p256", EC), ("rsa2048", FULL)])
def test_an_enrollment_by_an_agent(bench: Bench, form: Form, kind: pki.KeyKind, path: str) -> None:
    bench.protocol = replace(bench.protocol, site=Site(path), form=form)

    bench.issued(bench.request(pki.new_key(kind)))


def test_a_renewal_and_its_revocation(bench: Bench) -> None:
    """With an EC key: of RSA, Dogtag's profile for holders wants the last 30 days of the certificate."""
    first = bench.request(pki.new_key())
    current = (bench.issued(first).chain, first.key)
    bench.protocol = replace(bench.protocol, site=Site(f"{HOLDER}?profileId=caECFullCMCUserSignedCert"))
    renewal = bench.request(pki.new_key(), current)
    renewed = bench.issued(renewal)
    holder = (renewed.chain, renewal.key)

    wanted = RevokeRequest(CertificateId.of(renewed.chain[0]), Reason.SUPERSEDED)
    done = bench.run(services.revoke(bench.conversation(HOLDER, holder), wanted, bench.now), holder)

    assert isinstance(done, services.Revoked)
    assert bench.server.status_of(renewed.chain[0].serial_number) == "REVOKED"
    assert bench.server.status_of(current[0][0].serial_number) == "VALID"


def test_a_revocation_by_an_agent(bench: Bench) -> None:
    certificate = bench.issued(bench.request(pki.new_key())).chain[0]
    wanted = RevokeRequest(CertificateId.of(certificate), Reason.CESSATION_OF_OPERATION)
    conversation = bench.conversation(FULL, bench.server.agent)

    done = bench.run(services.revoke(conversation, wanted, bench.now), bench.server.agent)

    assert isinstance(done, services.Revoked)
    assert bench.server.status_of(certificate.serial_number) == "REVOKED"


def test_a_certificate_that_is_not_there(bench: Bench) -> None:
    unknown = CertificateId(bench.server.authority.subject.public_bytes(), 0x7FFF_FFFF)
    conversation = bench.conversation(FULL, bench.server.agent)

    done = bench.run(
        services.revoke(conversation, RevokeRequest(unknown, Reason.SUPERSEDED), bench.now),
        bench.server.agent,
    )

    assert isinstance(done, Rejected)


def test_without_a_certificate_in_tls(bench: Bench) -> None:
    """HTTP 200, and a signed failure that repeats neither transaction nor nonce: no answer to us for sure."""
    bench.anonymous = True

    with pytest.raises(RemoteProtocolError) as caught:
        bench.enroll(bench.request(pki.new_key()))

    assert caught.value.code == "cmc.unmatched"
    assert "Invalid Credential" in str(caught.value)


# Dogtag's tools


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Tools, World, str]]:
    with tools() as opened, simulator(tmp_path) as (world, url):
        device = world.manufacturer.device(SERIAL, world.now())
        opened.take("device", device.chain, device.key)
        for number, anchor in enumerate((*world.domain.anchors, *world.domain.intermediates)):
            opened.trust(f"anchor {number}", anchor)
        yield opened, world, url


def sent(url: str, message: bytes) -> bytes:
    """Dogtag's HttpClient sends no Content-Type, which RFC 5273 demands, so this does it."""
    place = url.removeprefix("http://")
    host, _, path = place.partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("POST", f"/{path}", message, {"Content-Type": FULL_REQUEST})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200
    return body


CONTROLS = {
    "transactionMgt__enable": "true",
    "transactionMgt__id": "99",
    "senderNonce__enable": "true",
    "senderNonce__id": "nonce",
}


def written(opened: Tools, name: str, key: SigningKey) -> str:
    """A PKCS#10 for *key*, where the tools find it."""
    subject = pki.name("gateway", SERIAL)
    made = x509.load_der_x509_csr(csr.build(key, subject))
    (opened.outside / name).write_bytes(made.public_bytes(Encoding.PEM))
    return name


def test_dogtags_client_enrolls(client: tuple[Tools, World, str]) -> None:
    opened, world, url = client
    key = pki.new_key()
    message = opened.request(
        "enroll",
        input=written(opened, "new.csr", key),
        nickname="device",
        **CONTROLS,
    )

    said = opened.response(sent(url, message))

    assert "CMC Full Response" in said
    assert "Status: SUCCESS" in said
    (issued,) = (each.certificate for each in world.issued)
    assert spki(issued) == spki(key)


def test_dogtags_client_is_refused_as_a_stranger(client: tuple[Tools, World, str]) -> None:
    opened, world, url = client
    message = opened.request(
        "enroll", input=written(opened, "new.csr", pki.new_key()), nickname=AGENT, **CONTROLS
    )

    said = opened.response(sent(url, message))

    assert "failInfo=bad message check" in said.lower() or "OtherInfo type: FAIL" in said
    assert world.issued == []


def test_dogtags_client_revokes(client: tuple[Tools, World, str]) -> None:
    opened, world, url = client
    key = pki.new_key()
    enrolled = opened.request(
        "enroll",
        input=written(opened, "new.csr", key),
        nickname="device",
        **CONTROLS,
    )
    assert "Status: SUCCESS" in opened.response(sent(url, enrolled))
    certificate = world.issued[-1].certificate
    opened.take("ldevid", (certificate, world.domain.issuing.certificate), key)
    message = opened.request(
        "revoke",
        nickname="ldevid",
        revRequest__enable="true",
        revRequest__serial=str(certificate.serial_number),
        revRequest__reason="superseded",
        **CONTROLS,
    )

    said = opened.response(sent(url, message))

    assert "Status: SUCCESS" in said
    assert certificate.serial_number in world.revoked
