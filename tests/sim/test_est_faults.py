"""Each EST fault is there, and our own client, asked in process, refuses it by its name."""

from __future__ import annotations

import base64
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.model import EnrollmentRequest, Issued, Moved, Offer, Pending, Purpose, Rejected
from holdfast_sim.ca import name
from holdfast_sim.faults import CACERTS_KINDS, ISSUE_KINDS, TRANSPORT_KINDS
from sim.actors import HOST, PORT, START, Anchored, Bench, Channel, certificates, drive

ENROLLED_WRONG = {
    "key-mismatch": "est.key-mismatch",
    "extra-chain": Issued,
    "reordered-chain": Issued,
    "two-leaves": "est.several-certificates",
    "no-certificates": "cms.no-certificates",
    "issued-ca": "chain.is-ca",
    "foreign-ca": "chain.untrusted",
    "issued-expired": "chain.expired",
    "issued-future": "chain.not-yet-valid",
    "wrong-subject": Issued,  # a CA may choose the names at first enrollment
    "wrong-usage": "chain.usage",
    "rollover": "chain.untrusted",
    "refuse": Rejected,
}
SPOILED = {
    "status": RemoteProtocolError,
    "redirect": RemoteProtocolError,
    "pending": Pending,
    "pending-date": Pending,
    "pending-no-retry-after": Pending,
    "wrong-type": RemoteProtocolError,
    "no-type": RemoteProtocolError,
    "empty": RemoteProtocolError,
    "garbage": RemoteProtocolError,
    "garbage-json": RemoteProtocolError,
    "non-der": RemoteProtocolError,
    "pem": (Issued, Offer),
    "unwrapped": (Issued, Offer),
    "crlf": (Issued, Offer),
    "wrong-encoding": (Issued, Offer),
    "cut-der": RemoteProtocolError,
    "truncated": TransportError,
    "oversized": RemoteProtocolError,
    "endless": RemoteProtocolError,
    "drop-before": TransportError,
    "drop-after": TransportError,
    "slow": TransportError,
}


def test_every_fault_is_accounted_for() -> None:
    assert set(ENROLLED_WRONG) == ISSUE_KINDS
    assert set(SPOILED) == TRANSPORT_KINDS


def ask(bench: Bench, operation: str) -> Any:
    """What the client makes of one exchange over an anchored link: an outcome or the error that it raised."""
    now, anchors = bench.time.moment(), bench.world.domain.cacerts
    trust = Anchored(
        lambda chain: validate(chain, anchors, now, Rule.tls_server(HOST, allow_cmcra=True)) and None
    )
    est = EstProtocol()
    request = EnrollmentRequest(
        Purpose.INITIAL, bench.csr(), bench.key, name("gateway"), anchors, b"t", bench.world.random
    )
    with bench.transport.open(Channel(HOST, PORT, trust, bench.idevid)) as link:
        exchange: Any = (
            est.enroll(request, link.tls, now) if operation == "enroll" else est.discover(link.tls, now)
        )
        try:
            return drive(exchange, link.send)
        except HoldfastError as error:
            return error


@pytest.mark.parametrize("kind", sorted(ENROLLED_WRONG))
def test_a_wrong_certificate(kind: str) -> None:
    bench = Bench.make(f"simpleenroll:{kind}:1")
    expected, result = ENROLLED_WRONG[kind], ask(bench, "enroll")
    assert [fault.kind for fault in bench.site.faults.applied] == [kind]
    if isinstance(expected, str):
        assert isinstance(result, TrustError | RemoteProtocolError), result
        assert result.code == expected, result
    else:
        assert isinstance(result, expected), result
    assert isinstance(ask(bench, "enroll"), Issued), "once was asked for"


@pytest.mark.parametrize("kind", sorted(SPOILED))
@pytest.mark.parametrize(("operation", "where"), [("enroll", "simpleenroll"), ("discover", "cacerts")])
def test_a_spoiled_answer(kind: str, operation: str, where: str) -> None:
    bench = Bench.make(f"{where}:{kind}")
    result = ask(bench, operation)
    assert bench.site.faults.applied[0].kind == kind
    if operation == "discover" and kind.startswith("pending"):
        assert isinstance(result, RemoteProtocolError), "cacerts knows no waiting"
    else:
        assert isinstance(result, SPOILED[kind]), result


@pytest.mark.parametrize("kind", sorted(CACERTS_KINDS - {"foreign-anchor"}))
def test_wrong_authorities(kind: str) -> None:
    result = ask(Bench.make(f"cacerts:{kind}"), "discover")
    assert isinstance(result, TrustError | RemoteProtocolError), result


def test_foreign_authorities_are_handed_out() -> None:
    """An authenticated server may name new anchors (RFC 7030 §4.1.3); just not those of the issuer."""
    bench = Bench.make("cacerts:foreign-anchor")
    result = ask(bench, "discover")
    assert isinstance(result, Offer)
    assert set(result.ca_certificates) == set(bench.world.impostor.cacerts)


def test_a_redirect_elsewhere() -> None:
    result = ask(Bench.make("simpleenroll:redirect:to=https://other.example:8443/x"), "enroll")
    assert result == Moved("https://other.example:8443/x")


class TestWhatTheFaultsAre:
    """Independent of the client: the bytes themselves."""

    def leaf(self, kind: str) -> tuple[Bench, x509.Certificate]:
        bench = Bench.make(f"simpleenroll:{kind}")
        return bench, certificates(bench.enroll())[0]

    def test_key_mismatch(self) -> None:
        bench, leaf = self.leaf("key-mismatch")
        assert leaf.public_key() != bench.key.public_key()
        leaf.verify_directly_issued_by(bench.world.domain.issuing.certificate)

    def test_issued_ca(self) -> None:
        _, leaf = self.leaf("issued-ca")
        assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    def test_foreign_ca(self) -> None:
        bench, leaf = self.leaf("foreign-ca")
        leaf.verify_directly_issued_by(bench.world.impostor.issuing.certificate)

    def test_validity(self) -> None:
        assert self.leaf("issued-expired")[1].not_valid_after_utc < START
        assert self.leaf("issued-future")[1].not_valid_before_utc > START + timedelta(days=300)

    def test_subject_and_usage(self) -> None:
        assert self.leaf("wrong-subject")[1].subject == name("Somebody Else")
        usage = self.leaf("wrong-usage")[1].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]

    def test_order_and_number(self) -> None:
        extra = certificates(self.enrolled("extra-chain"))
        assert len(extra) == 3
        with pytest.warns(UserWarning, match="InvalidSetOrdering"):
            reordered = certificates(self.enrolled("reordered-chain"))
        assert len(reordered) == 3
        first, second = certificates(self.enrolled("two-leaves"))
        assert first.public_key() == second.public_key()
        assert first.serial_number != second.serial_number

    def enrolled(self, kind: str) -> Any:
        return Bench.make(f"simpleenroll:{kind}").enroll()

    def test_waiting(self) -> None:
        assert self.enrolled("pending:retry-after=30").header("Retry-After") == "30"
        assert self.enrolled("pending-no-retry-after").header("Retry-After") is None
        date = self.enrolled("pending-date:retry-after=90").header("Retry-After")
        assert parsedate_to_datetime(date).astimezone(UTC) == START + timedelta(seconds=90)

    def test_a_pending_request_is_granted_after_its_time(self) -> None:
        bench = Bench.make("simpleenroll:pending:2")
        assert [bench.enroll().status for _ in range(3)] == [202, 202, 200]

    def test_bodies(self) -> None:
        honest = Bench.make().get("cacerts").body

        def body(text: str) -> bytes:
            return Bench.make(f"cacerts:{text}").get("cacerts").body

        assert body("empty") == b""
        assert len(body("garbage:size=100")) == 100
        assert len(body("garbage-json:size=1000")) == 1000
        assert base64.b64decode(body("non-der:size=40")).startswith(b"this is base64, but")
        assert body("pem").startswith(b"-----BEGIN PKCS7-----\n")
        assert b"\n" not in body("unwrapped")
        assert b"\r\n" in body("crlf")
        assert len(body("cut-der:keep=9")) == 9
        assert len(honest) > 1000
        odd = Bench.make("cacerts:wrong-encoding").get("cacerts")
        assert odd.header_all("Content-Transfer-Encoding") == ("8bit",)
        assert Bench.make("cacerts:no-type").get("cacerts").header("Content-Type") is None
        assert Bench.make("cacerts:wrong-type:type=a/b").get("cacerts").header("Content-Type") == "a/b"

    def test_refusals_and_redirects(self) -> None:
        assert self.enrolled("refuse:code=409").status == 409
        answer = self.enrolled("status:code=503:retry-after=5")
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
        loop = self.enrolled("redirect")
        assert (loop.status, loop.header("Location")) == (307, "/.well-known/est/simpleenroll")

    def test_what_was_processed_and_what_was_not(self) -> None:
        for kind, issued in (("drop-before", 0), ("drop-after", 1), ("pending", 0), ("truncated", 1)):
            bench = Bench.make(f"simpleenroll:{kind}")
            bench.enroll()
            assert len(bench.world.issued) == issued, kind
