"""Our EST client at servers that others wrote."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Anchored, Channel, SocketLink, TlsTransport
from holdfast.wire import csr
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import TransportError, TrustError
from holdfast.wire.est import messages
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.request import link_challenge
from holdfast.wire.http import HttpCredentials
from holdfast.wire.model import (
    Chain,
    ClockState,
    CsrTemplate,
    EnrollmentRequest,
    HttpRequest,
    Issued,
    KeyAlgorithm,
    Moment,
    Offer,
    Outcome,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
    TlsInfo,
)
from interop.est_peers import PASSWORD, USER, DebianRoot, Domain, globalsign_server, libest_server

pytestmark = pytest.mark.interop

NAME = pki.name("gateway", "SN-17")


@dataclass(frozen=True)
class Device:
    """Our client towards one server: trust, time and transport as the worker puts them together."""

    port: int
    anchors: Chain
    protocol: EstProtocol
    client: tuple[Chain, SigningKey] | None = None
    host: str = "localhost"

    @property
    def now(self) -> Moment:
        now = datetime.now(UTC)
        return Moment(now, now - timedelta(days=1), ClockState.TRUSTED)

    def open(self, *, bound: bool = False) -> SocketLink:
        rule = Rule.tls_server(self.host, allow_cmcra=True)

        def check(chain: Chain) -> None:
            validate(chain, self.anchors, self.now, rule)

        return TlsTransport().open(
            Channel(self.host, self.port, Anchored(check), self.client, max_tls12=bound)
        )

    def discover(self) -> Offer:
        with ExitStack() as links:
            link = links.enter_context(self.open())
            offer = drive(
                self.protocol.discover(link.tls, self.now), link, lambda: links.enter_context(self.open())
            )
        assert isinstance(offer, Offer)
        return offer

    def request(
        self, key: SigningKey, purpose: Purpose = Purpose.INITIAL, challenge: str | None = None
    ) -> EnrollmentRequest:
        subject = NAME
        return EnrollmentRequest(
            purpose=purpose,
            csr=csr.build(key, subject, challenge=challenge),
            key=key,
            subject=subject,
            anchors=self.anchors,
            transaction=b"t",
            random=secrets.token_bytes,
            current=self.client,
        )

    def enroll(self, key: SigningKey, purpose: Purpose = Purpose.INITIAL) -> Outcome:
        """Without proof of possession bound to TLS: a server may end the connection after each answer."""
        with ExitStack() as links:
            link = links.enter_context(self.open())
            return drive(
                self.protocol.enroll(self.request(key, purpose), link.tls, self.now),
                link,
                lambda: links.enter_context(self.open()),
            )

    def enroll_bound(self, key: SigningKey, challenge: Callable[[TlsInfo], str] = link_challenge) -> Outcome:
        """With the challengePassword of the very connection, which nothing may follow."""
        with self.open(bound=True) as link:
            request = self.request(key, challenge=challenge(link.tls))
            return drive(self.protocol.enroll(request, link.tls, self.now), link)

    def holding(self, issued: Issued, key: SigningKey) -> Device:
        return Device(self.port, self.anchors, self.protocol, (issued.chain, key), self.host)


def issued(outcome: Outcome) -> Issued:
    assert isinstance(outcome, Issued), outcome
    return outcome


def openssl_verifies(certificate: x509.Certificate, domain: Domain, directory: Path) -> None:
    """A third party's word on what was issued."""
    (directory / "anchor.pem").write_bytes(pki.pem(*domain.anchors))
    leaf = directory / "leaf.pem"
    leaf.write_bytes(pki.pem(certificate))
    pki.openssl("verify", "-purpose", "sslclient", "-CAfile", str(directory / "anchor.pem"), str(leaf))


def enroll_renew_rekey(device: Device, domain: Domain, directory: Path) -> None:
    """First enrollment, then with the certificate: the same key, then a new one."""
    first_key, second_key = pki.new_key(), pki.new_key("p384")
    first = issued(device.enroll(first_key))
    renewed = issued(device.holding(first, first_key).enroll(first_key, Purpose.RENEW))
    rekeyed = issued(device.holding(renewed, first_key).enroll(second_key, Purpose.REKEY))
    leaves = [each.chain[0] for each in (first, renewed, rekeyed)]
    assert len({leaf.serial_number for leaf in leaves}) == 3
    assert [leaf.subject for leaf in leaves] == [NAME] * 3
    assert leaves[2].public_key() == second_key.public_key()
    for leaf in leaves:
        openssl_verifies(leaf, domain, directory)


def password(user: str = USER, secret: str = PASSWORD) -> EstProtocol:
    return EstProtocol(credentials=HttpCredentials(user, secret), random=secrets.token_bytes)


# libest: HTTP/1.0, one request a connection, TLS 1.2


@pytest.mark.parametrize("bound", [False, True], ids=["plain", "bound"])
def test_libest_tells_its_authorities_and_wishes(debian: DebianRoot, domain: Domain, bound: bool) -> None:
    with libest_server(debian, domain, *(["-t"] if bound else [])) as port:
        offer = Device(port, domain.anchors, EstProtocol()).discover()
    assert offer.ca_certificates == domain.anchors
    # Its built-in wishes: SHA-384 among attributes that mean nothing to us; -t adds challengePassword.
    assert (offer.template.digest, offer.template.link_tls_unique) == ("sha384", bound)
    assert "1.3.6.1.1.1.1.22" in offer.template.unknown


@pytest.mark.parametrize("options", [("-b",), ("-h",)], ids=["basic", "digest"])
def test_libest_by_password(
    options: tuple[str, ...], debian: DebianRoot, domain: Domain, tmp_path: Path
) -> None:
    with libest_server(debian, domain, *options) as port:
        key = pki.new_key()
        certificate = issued(Device(port, domain.anchors, password()).enroll(key)).chain[0]
        openssl_verifies(certificate, domain, tmp_path)
        refused = Device(port, domain.anchors, password(secret="wrong")).enroll(key)
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.unsupported) == ("est.unauthorized", False)


def test_libest_enroll_renew_rekey(debian: DebianRoot, domain: Domain, tmp_path: Path) -> None:
    with libest_server(debian, domain, "-o") as port:
        enroll_renew_rekey(Device(port, domain.anchors, password()), domain, tmp_path)


def test_libest_proof_of_possession(debian: DebianRoot, domain: Domain) -> None:
    key = pki.new_key()
    with libest_server(debian, domain, "-o", "-t") as port:
        bootstrap = Device(port, domain.anchors, EstProtocol(), certificate_of(domain))
        assert issued(bootstrap.enroll_bound(key)).chain[0].public_key() == key.public_key()
        # The server does check: without the binding it refuses.
        refused = bootstrap.enroll(key)
        assert isinstance(refused, Rejected)
        assert (refused.code, "Proof of Possession" in refused.detail) == ("est.unauthorized", True)


def certificate_of(domain: Domain) -> tuple[Chain, SigningKey]:
    """A certificate that the server's CA gave to a device before, by other means."""
    begin = datetime.now(UTC) - timedelta(minutes=5)
    device = pki.end_entity(
        "factory",
        domain.authority,
        eku=[pki.CLIENT_AUTH],
        not_before=begin,
        not_after=begin + timedelta(days=30),
    )
    return device.chain, device.key


def test_libest_asks_for_patience(debian: DebianRoot, domain: Domain) -> None:
    key = pki.new_key()
    with libest_server(debian, domain, "-o", "-m", "120") as port:
        device = Device(port, domain.anchors, EstProtocol(), certificate_of(domain))
        request = device.request(key)
        with device.open() as link:
            pending = drive(device.protocol.enroll(request, link.tls, device.now), link)
        assert isinstance(pending, Pending)
        assert pending.retry_after == timedelta(seconds=120)
        with device.open() as link:
            resumed = drive(device.protocol.resume(request, pending.resume, link.tls, device.now), link)
        assert issued(resumed).chain[0].public_key() == key.public_key()


# GlobalSign: HTTP/1.1, TLS 1.3, CRLF in its base64, CA labels


def test_globalsign_tells_its_authorities_and_wishes(domain: Domain, tmp_path: Path) -> None:
    with globalsign_server(tmp_path, domain) as port:
        device = Device(port, domain.anchors, EstProtocol())
        offer = device.discover()
        assert (offer.ca_certificates, offer.template) == (domain.anchors, CsrTemplate())
        # Its label "csrattrs" holds RFC 7030 §4.5.2's own example. Our client refuses a label that is the
        # name of an operation, so this goes beneath it.
        with device.open() as link:
            answer = link.send(HttpRequest("GET", f"{messages.BASE}/csrattrs/csrattrs"))
    template = messages.read_csrattrs(answer)
    assert (template.link_tls_unique, template.key, template.digest) == (True, KeyAlgorithm.P384, "sha384")


def test_globalsign_enroll_renew_rekey(domain: Domain, tmp_path: Path) -> None:
    with globalsign_server(tmp_path, domain) as port:
        enroll_renew_rekey(Device(port, domain.anchors, EstProtocol()), domain, tmp_path)


def test_globalsign_on_one_connection(domain: Domain, tmp_path: Path) -> None:
    with globalsign_server(tmp_path, domain) as port:
        device = Device(port, domain.anchors, EstProtocol())
        with device.open() as link:
            drive(device.protocol.discover(link.tls, device.now), link)
            request = device.request(pki.new_key())
            issued(drive(device.protocol.enroll(request, link.tls, device.now), link))
            assert (link.requests, link.alive, link.tls.version) == (3, True, "TLSv1.3")


@pytest.mark.parametrize(
    ("common", "kind"), [("Trigger Error Deferred", Pending), ("Trigger Error Forbidden", Rejected)]
)
def test_globalsign_defers_and_refuses(
    common: str, kind: type[Outcome], domain: Domain, tmp_path: Path
) -> None:
    key = pki.new_key()
    with globalsign_server(tmp_path, domain) as port:
        device = Device(port, domain.anchors, EstProtocol("triggererrors"))
        request = EnrollmentRequest(
            Purpose.INITIAL,
            csr.build(key, pki.name(common)),
            key,
            pki.name(common),
            domain.anchors,
            b"t",
            secrets.token_bytes,
        )
        with device.open() as link:
            outcome = drive(device.protocol.enroll(request, link.tls, device.now), link)
    assert isinstance(outcome, kind)
    if isinstance(outcome, Pending):
        assert outcome.retry_after == timedelta(seconds=600)


# What no server may get away with


def test_a_server_of_another_authority_is_refused(domain: Domain, tmp_path: Path) -> None:
    stranger = Domain.create()
    with globalsign_server(tmp_path, domain) as port:
        with pytest.raises(TrustError) as caught:
            Device(port, stranger.anchors, EstProtocol()).discover()
        assert caught.value.code == "chain.untrusted"


def test_a_server_of_another_name_is_refused(domain: Domain, tmp_path: Path) -> None:
    with globalsign_server(tmp_path, domain) as port:
        with pytest.raises(TrustError) as caught:
            Device(port, domain.anchors, EstProtocol(), host="127.0.0.1").discover()
        assert caught.value.code == "chain.name"


def test_libest_ends_the_connection_and_the_link_says_so(debian: DebianRoot, domain: Domain) -> None:
    with libest_server(debian, domain) as port:
        device = Device(port, domain.anchors, EstProtocol())
        with device.open() as link, pytest.raises(TransportError) as caught:
            drive(device.protocol.discover(link.tls, device.now), link)
        assert caught.value.code == "transport.closed"
