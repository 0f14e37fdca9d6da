"""Messages that others wrote, and ours as others read them: a codec cannot agree with itself here."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode as asn1_encode
from pyasn1_alt_modules import rfc9810

from holdfast.wire import algorithm_oids, crmf, csr, der
from holdfast.wire.chain import Rule, validate
from holdfast.wire.cmp import bodies, oids, requests
from holdfast.wire.cmp.bodies import Failure
from holdfast.wire.cmp.confirmation import certificate_hash
from holdfast.wire.cmp.mac import MacParameters, check, read_parameters
from holdfast.wire.cmp.message import Body, Message, encode, parse
from holdfast.wire.cmp.protection import SharedSecret, SignedByAuthority, Signer
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.identified import read_algorithm
from holdfast.wire.message_signatures import hash_of, verify_by
from holdfast.wire.model import ClockState, Moment
from holdfast.wire.revocation.reason import Reason
from wire_pki import TRUSTED, certificate, dns, end_entity, name, new_key
from wire_pki import ca as make_ca

VECTORS = Path(__file__).parents[1] / "vectors" / "cmp"
NAMES = sorted(p.stem for p in VECTORS.glob("*.der"))
OPENSSL = [n for n in NAMES if n.startswith("openssl35-")]
ROOT = x509.load_pem_x509_certificate((VECTORS / "openssl35-ca.pem").read_bytes())
THEN = datetime(2026, 11, 24, 15, tzinfo=UTC)
NOW = Moment(THEN, THEN, ClockState.TRUSTED)
SECRET = b"golden-secret"


def vector(title: str) -> Message:
    return parse((VECTORS / f"{title}.der").read_bytes())


@pytest.mark.parametrize("title", NAMES)
def test_a_foreign_message_comes_out_as_it_went_in(title: str) -> None:
    data = (VECTORS / f"{title}.der").read_bytes()
    message = parse(data)
    protection = message.protection
    again = encode(
        message.header,
        message.kind,
        message.content,
        protect=None if protection is None else lambda _: protection,
        extra_certs=message.extra_certs,
    )
    assert again == data


@pytest.mark.parametrize("title", [n for n in OPENSSL if "pbm" not in n])
def test_a_foreign_signature_is_verified_over_what_was_sent(title: str) -> None:
    message = vector(title)
    assert message.header.protection is not None
    assert message.protection is not None
    signer = x509.load_der_x509_certificate(message.extra_certs[0])
    verify_by(signer, message.header.protection, message.protection, message.protected)
    with pytest.raises(TrustError, match=r"signature\.invalid"):
        verify_by(signer, message.header.protection, message.protection, message.protected + b"\0")


@pytest.mark.parametrize("title", ["ip", "kup", "cp", "rp", "pkiconf", "genp", "error"])
def test_a_foreign_authority_is_believed_under_its_root(title: str) -> None:
    message = vector(f"openssl35-{title}")
    SignedByAuthority((ROOT,)).check(message, NOW)
    with pytest.raises(TrustError):
        SignedByAuthority((make_ca("Other").certificate,)).check(message, NOW)


def test_a_foreign_device_is_no_authority() -> None:
    with pytest.raises(TrustError, match=r"chain\.usage"):
        SignedByAuthority((ROOT,)).check(vector("openssl35-ir"), NOW)


def test_a_certificate_that_says_no_usage_at_all_is_no_authority() -> None:
    leaf = certificate("quiet", new_key(), CA)
    path = (leaf.certificate, CA.certificate)
    with pytest.raises(TrustError, match=r"chain\.usage"):
        validate(path, (CA.certificate,), TRUSTED, Rule.message_authority(pinned=False))
    validate(path, (CA.certificate,), TRUSTED, Rule.message_authority(pinned=True))


def test_a_foreign_mac_is_verified() -> None:
    for title in ("ir-pbm", "ip-pbm"):
        message = vector(f"openssl35-{title}")
        assert message.header.protection is not None
        assert message.protection is not None
        protected = (message.protected, message.protection)
        hmac_sha1 = title == "ip-pbm"
        check(message.header.protection, SECRET, protected, hmac_sha1=hmac_sha1)
        with pytest.raises(TrustError, match=r"cmp\.protection"):
            check(message.header.protection, b"other", protected, hmac_sha1=hmac_sha1)
    request = vector("openssl35-ir-pbm").header.protection
    assert request is not None
    assert read_parameters(request).iterations == 500


def test_a_foreign_pbmac1_is_computed_as_we_do() -> None:
    """Its writer tells the key's length in bits, so the message is refused; taken for bits, the MAC fits."""
    message = vector("siemens-error-pbmac1")
    algorithm = message.header.protection
    assert algorithm is not None
    with pytest.raises(RemoteProtocolError, match="a key of 4096 octets"):
        read_parameters(algorithm)
    derivation = read_algorithm(der.read_one(algorithm.parameters))
    inner = der.read_one(derivation.parameters)
    told = MacParameters(
        "pbmac1", inner.octets(), inner.integer(), algorithm_oids.HMAC_SHA256, key_length=4096
    )
    assert read_algorithm(der.read_one(told.algorithm().parameters)) == derivation
    fitting = replace(told, key_length=4096 // 8)
    assert fitting.compute(b"nine bean rows", message.protected) == message.protection


def test_a_foreign_request_is_read_and_its_proof_verified() -> None:
    (request,) = crmf.read_requests(vector("openssl35-ir").content)
    asked = crmf.as_csr(request.template)
    assert asked.subject == name("gateway")
    assert request.request_id == requests.REQUEST_ID
    assert request.proof is not None
    verify_by(asked, *request.proof, request.signed)
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == dns("gateway.example")


def test_a_foreign_update_names_what_it_updates() -> None:
    (request,) = crmf.read_requests(vector("openssl35-kur").content)
    control = request.control(oids.OLD_CERT_ID)
    assert control is not None
    issuer, serial = requests.read_certificate_id(control.value)
    assert issuer == der.explicit(4, ROOT.subject.public_bytes())
    (response,) = bodies.read_cert_reply(vector("openssl35-kup").content).responses
    assert response.certificate is not None
    assert serial == x509.load_der_x509_certificate(response.certificate).serial_number


def test_foreign_answers_are_read() -> None:
    reply = bodies.read_cert_reply(vector("openssl35-ip").content)
    assert reply.ca_pubs == (ROOT.public_bytes(Encoding.DER),)
    leaf = x509.load_der_x509_certificate(reply.responses[0].certificate or b"")
    (confirmed,) = bodies.read_cert_confirm(vector("openssl35-certconf").content)
    assert confirmed.cert_hash == hash_of(leaf.public_bytes(Encoding.DER), certificate_hash(leaf)[0])
    waiting = bodies.read_cert_reply(vector("openssl35-ip-waiting").content).responses[0]
    assert waiting.status.status == bodies.Status.WAITING
    assert bodies.read_poll_request(vector("openssl35-pollreq").content) == (0,)
    assert vector("openssl35-p10cr").kind is Body.P10CR
    assert bodies.read_cert_reply(vector("openssl35-cp").content).responses[0].request_id == -1
    (details,) = requests.read_revocations(vector("openssl35-rr").content)
    assert details.reasons == (Reason.SUPERSEDED,)
    assert bodies.read_revocation_reply(vector("openssl35-rp").content).statuses[0].granted
    error = bodies.read_error(vector("openssl35-error").content)
    assert error.status.has(Failure.BAD_REQUEST)
    assert "CMP routines" in error.describe()
    bodies.read_confirmed(vector("openssl35-pkiconf").content)
    (asked,) = bodies.read_general(vector("openssl35-genm").content)
    assert (asked.oid, asked.value) == (oids.CA_CERTS, b"")


def test_a_confirmation_of_pvno_3_names_its_hash() -> None:
    message = vector("rfc9810-1")
    assert message.header.pvno == 3
    (confirmed,) = bodies.read_cert_confirm(message.content)
    assert confirmed.hash_algorithm is not None


# --- ours, as another parser reads it -------------------------------------------------------------------


CA = make_ca("CA")
DEVICE = end_entity("device", CA)
PROTECTORS = [
    Signer(DEVICE.chain, DEVICE.key),
    SharedSecret("gw", b"secret"),
    SharedSecret("gw", b"s", "pbmac1"),
]


def contents() -> dict[Body, bytes]:
    key = new_key()
    asked = csr.build(key, name("gateway"), san=dns("gateway.example"))
    update = requests.request_message(asked, key, replaces=DEVICE.certificate)
    status = bodies.StatusInfo(
        bodies.Status.REJECTION, ("no",), frozenset({Failure.BAD_POP, Failure.DUPLICATE_CERT_REQ})
    )
    granted = bodies.CertResponse(0, bodies.StatusInfo(0), DEVICE.certificate.public_bytes(Encoding.DER))
    digest, _ = certificate_hash(DEVICE.certificate)
    confirmed = bodies.CertStatus(hash_of(b"x", digest), 0, status)
    return {
        Body.IR: requests.request_message(asked, key),
        Body.KUR: update,
        Body.P10CR: asked,
        Body.IP: bodies.CertReply((granted,), (CA.certificate.public_bytes(Encoding.DER),)).encode(),
        Body.CERT_CONF: bodies.cert_confirm(confirmed),
        Body.PKICONF: der.null(),
        Body.POLL_REQ: bodies.poll_request(-1),
        Body.POLL_REP: bodies.poll_reply(bodies.PollReply(0, 300, ("later",))),
        Body.ERROR: bodies.ErrorContent(status, 7, ("details",)).encode(),
        Body.RR: requests.revocation_request(DEVICE.certificate, 4),
        Body.RP: bodies.RevocationReply((status,)).encode(),
        Body.GENM: bodies.general(bodies.Info(oids.CA_CERTS)),
    }


@pytest.mark.parametrize("protector", PROTECTORS, ids=["signature", "pbm", "pbmac1"])
def test_ours_is_read_by_another_parser(protector: Any) -> None:
    header = replace(vector("openssl35-ir").header, sender=protector.sender, sender_kid=protector.key_id)
    for kind, content in contents().items():
        algorithm, protect = protector.start(os.urandom)
        data = encode(
            replace(header, protection=algorithm),
            kind,
            content,
            protect=protect,
            extra_certs=protector.extra_certs,
        )
        found, rest = decode(data, asn1Spec=rfc9810.PKIMessage())
        assert not rest
        assert asn1_encode(found) == data
        wanted = kind.label if kind is not Body.KUR else "kur"
        assert found["body"].getName() == wanted
