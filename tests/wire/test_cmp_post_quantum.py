"""A CA that has moved on to ML-DSA: its answers and chains verify, and a device's own key need not move."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire import csr
from holdfast.wire.algorithms import ML_DSA
from holdfast.wire.cmp import bodies
from holdfast.wire.cmp.client import CmpProtocol, Form
from holdfast.wire.cmp.message import Body, Header, Message, encode, parse
from holdfast.wire.cmp.paths import answer
from holdfast.wire.cmp.protection import SignedByAuthority
from holdfast.wire.errors import TrustError
from holdfast.wire.identified import Algorithm, named
from holdfast.wire.message_signatures import verify_by
from holdfast.wire.model import EnrollmentRequest, HttpRequest, HttpResponse, Issued, Pending, Purpose
from wire_pki import BEGIN, END, TRUSTED, end_entity, name, new_key
from wire_pki import ca as make_ca

KINDS = {
    "2.16.840.1.101.3.4.3.17": mldsa.MLDSA44PrivateKey,
    "2.16.840.1.101.3.4.3.18": mldsa.MLDSA65PrivateKey,
    "2.16.840.1.101.3.4.3.19": mldsa.MLDSA87PrivateKey,
}


def certificate(
    subject: str, key: Any, issuer: x509.Certificate | None, signer: Any, *, ca: bool
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer.subject if issuer else name(subject),
        name(subject),
        key,
        x509.random_serial_number(),
        BEGIN,
        END,
    ).add_extension(x509.BasicConstraints(ca, None), True)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    return builder.sign(signer, None)


class Authority:
    """A root and an issuing CA with ML-DSA keys; the issuing CA answers by CMP."""

    def __init__(self, oid: str) -> None:
        self.oid = oid
        root, self.key = KINDS[oid].generate(), KINDS[oid].generate()
        self.root = certificate("PQ Root", root.public_key(), None, root, ca=True)
        self.issuing = certificate("PQ Issuing", self.key.public_key(), self.root, root, ca=True)
        self.leaf: x509.Certificate | None = None
        self.confirmed: bodies.CertStatus | None = None
        self.versions: list[int] = []

    def protected(self, kind: Body, content: bytes, asked: Header) -> bytes:
        header = Header(
            named(self.issuing.subject),
            asked.sender,
            pvno=asked.pvno,
            protection=Algorithm(self.oid),
            transaction=asked.transaction,
            sender_nonce=os.urandom(16),
            recip_nonce=asked.sender_nonce,
        )
        certificates = [self.issuing.public_bytes(Encoding.DER)]
        return encode(header, kind, content, protect=self.key.sign, extra_certs=certificates)

    def serve(self, request: HttpRequest) -> HttpResponse:
        message = parse(request.body)
        self.versions.append(message.header.pvno)
        if message.kind is Body.CERT_CONF:
            (self.confirmed,) = bodies.read_cert_confirm(message.content)
            return answer(self.protected(Body.PKICONF, b"\x05\x00", message.header))
        public = x509.load_der_x509_csr(message.content).public_key()
        self.leaf = certificate("gateway", public, self.issuing, self.key, ca=False)
        granted = bodies.CertResponse(-1, bodies.StatusInfo(0), self.leaf.public_bytes(Encoding.DER))
        return answer(self.protected(Body.CP, bodies.CertReply((granted,)).encode(), message.header))


def message(authority: Authority) -> Message:
    header = Header(named(authority.issuing.subject), named(authority.issuing.subject))
    return parse(authority.protected(Body.PKICONF, b"\x05\x00", header))


@pytest.mark.parametrize("oid", KINDS)
def test_an_answer_signed_with_ml_dsa_verifies(oid: str) -> None:
    assert oid in ML_DSA
    authority = Authority(oid)
    judge = SignedByAuthority((authority.root,))
    judge.check(message(authority), TRUSTED)
    with pytest.raises(TrustError, match=r"cmp\.protection"):
        judge.check(replace(message(authority), protected=b"else"), TRUSTED)
    with pytest.raises(TrustError, match=r"chain\."):
        SignedByAuthority((Authority(oid).root,)).check(message(authority), TRUSTED)
    late = replace(TRUSTED, now=END + timedelta(days=1))
    with pytest.raises(TrustError, match=r"chain\.expired"):
        judge.check(message(authority), late)


def test_another_parameter_set_does_not_pass() -> None:
    small, large = Authority("2.16.840.1.101.3.4.3.17"), Authority("2.16.840.1.101.3.4.3.19")
    found = message(small)
    with pytest.raises(TrustError, match=r"signature\.invalid"):
        verify_by(large.issuing, Algorithm(small.oid), found.protection or b"", found.protected)
    with pytest.raises(TrustError, match=r"signature\.invalid"):
        verify_by(end_entity("x", make_ca("CA")).certificate, Algorithm(small.oid), b"", b"")


def test_a_device_with_a_key_of_today_enrolls_at_such_a_ca() -> None:
    """The hash of certConf has no signature hash to follow, so it is named, in pvno 3 (RFC 9810 §5.3.18)."""
    authority = Authority("2.16.840.1.101.3.4.3.18")
    key, maker = new_key(), make_ca("Maker")
    idevid = end_entity("device", maker)
    req = EnrollmentRequest(
        Purpose.INITIAL,
        csr.build(key, name("gateway")),
        key,
        name("gateway"),
        (authority.root,),
        os.urandom(16),
        os.urandom,
        signer=(idevid.chain, idevid.key),
    )
    protocol = CmpProtocol(form=Form.P10CR)
    outcome = run(protocol.enroll(req, None, TRUSTED), authority)
    assert isinstance(outcome, Pending)
    outcome = run(protocol.resume(req, outcome.resume, None, TRUSTED), authority)
    assert isinstance(outcome, Issued)
    assert outcome.chain == (authority.leaf, authority.issuing)
    assert authority.confirmed is not None
    assert authority.confirmed.hash_algorithm is not None
    assert authority.versions == [2, 3]
    assert authority.leaf is not None
    der = authority.leaf.public_bytes(Encoding.DER)
    assert authority.confirmed.cert_hash == hashlib.sha256(der).digest()


def run(exchange: Any, authority: Authority) -> Any:
    try:
        request = next(exchange)
        while True:
            request = exchange.send(authority.serve(request))
    except StopIteration as stop:
        return stop.value
