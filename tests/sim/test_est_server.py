"""The EST server does what RFC 7030 says, and refuses in words what it must refuse."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from asn1crypto import core
from asn1crypto import csr as asn1_csr
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire import oids
from holdfast.wire.csr import build
from holdfast.wire.est.csrattrs import Style, parse_csrattrs
from holdfast.wire.model import CsrTemplate, HttpRequest, HttpResponse, KeyAlgorithm
from holdfast_sim.answers import MAX_BODY
from holdfast_sim.ca import NEVER_EXPIRES, Credential, Validity, end_entity, name, new_key
from holdfast_sim.der import tlv
from holdfast_sim.enroll import _ChangeSubjectName
from holdfast_sim.manufacturer import Manufacturer
from holdfast_sim.tls import pem
from holdfast_sim.world import EstPolicy
from sim.actors import SERIAL, START, Bench, certificates

POST = "/.well-known/est/simpleenroll"


def text(response: HttpResponse) -> str:
    assert (response.header("Content-Type") or "").startswith("text/plain")
    return response.body.decode()


def test_cacerts_are_the_root_and_the_issuing_ca_in_wrapped_base64(bench: Bench) -> None:
    answer = bench.get("cacerts", bench.stranger)
    assert set(certificates(answer)) == set(bench.world.domain.cacerts)
    assert max(map(len, answer.body.splitlines())) <= 76
    assert answer.header("Content-Transfer-Encoding") == "base64"


def test_csrattrs(bench: Bench) -> None:
    assert bench.get("csrattrs").status == 204
    bench.world.est = replace(bench.world.est, template="absent")
    assert bench.get("csrattrs").status == 404
    styles: list[tuple[Style, CsrTemplate]] = [
        ("9908", CsrTemplate(key=KeyAlgorithm.P384)),
        ("7030", CsrTemplate(key=KeyAlgorithm.P384, digest="sha384", link_tls_unique=True)),
    ]
    for style, wish in styles:
        bench.world.est = replace(bench.world.est, template=wish, style=style)
        answer = bench.get("csrattrs")
        assert answer.header("Content-Type") == "application/csrattrs"
        assert parse_csrattrs(base64.b64decode(answer.body)) == wish


def test_an_idevid_gets_one_end_entity_certificate_that_openssl_verifies(
    bench: Bench, tmp_path: Path
) -> None:
    san = [x509.DNSName("gateway.example")]
    answer = bench.enroll(bench.csr(san=san))
    assert answer.header("Content-Type") == "application/pkcs7-mime; smime-type=certs-only"
    (leaf,) = certificates(answer)
    assert leaf.public_key() == bench.key.public_key()
    assert leaf.not_valid_after_utc == START + timedelta(days=90)
    assert list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == san
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (tmp_path / "leaf").write_text(pem(leaf))
    (tmp_path / "root").write_text(pem(bench.world.domain.root.certificate))
    (tmp_path / "issuing").write_text(pem(bench.world.domain.issuing.certificate))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", tmp_path / "root"]
    command += ["-attime", str(int(START.timestamp())), "-untrusted", tmp_path / "issuing", tmp_path / "leaf"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done


@pytest.mark.parametrize(
    ("life", "end"),
    [(timedelta(minutes=3), START + timedelta(minutes=3)), (None, NEVER_EXPIRES)],
)
def test_the_life_of_a_certificate_is_configured(life: timedelta | None, end: object) -> None:
    bench = Bench.make(est=EstPolicy(life=life))
    assert certificates(bench.enroll())[0].not_valid_after_utc == end


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P384, KeyAlgorithm.RSA2048])
def test_other_keys_are_certified_too(bench: Bench, algorithm: KeyAlgorithm) -> None:
    key = new_key(algorithm)
    (leaf,) = certificates(bench.enroll(build(key, name("gateway"))))
    assert leaf.public_key() == key.public_key()


def test_a_labelled_service_exists_where_configured() -> None:
    bench = Bench.make(est=EstPolicy(labels=frozenset({"iot"})))
    assert bench.get("iot/cacerts").status == 200
    assert bench.get("other/cacerts").status == 404
    assert bench.get("iot/iot/cacerts").status == 404


@pytest.mark.parametrize(("operation", "status"), [("serverkeygen", 501), ("unknown", 404)])
def test_operations_that_are_not_there(bench: Bench, operation: str, status: int) -> None:
    answer = bench.enroll(operation=operation)
    assert answer.status == status
    assert text(answer)


def test_wrong_method_type_and_size(bench: Bench) -> None:
    refused = bench.send(HttpRequest("GET", POST))
    assert (refused.status, refused.header("Allow")) == (405, "POST")
    assert bench.send(HttpRequest("POST", "/.well-known/est/cacerts")).status == 405
    assert bench.enroll(content_type="application/json").status == 415
    assert bench.enroll(content_type="Application/PKCS10; charset=x").status == 200
    assert bench.send(HttpRequest("POST", POST, (), b"A" * (MAX_BODY + 1))).status == 413


@pytest.mark.parametrize(
    "change", [bytes.strip, lambda b: b"".join(b.split()), lambda b: b.replace(b"\n", b"\r\n ")]
)
def test_base64_is_read_with_any_white_space(bench: Bench, change: object) -> None:
    body = change(base64.encodebytes(bench.csr()))  # type: ignore[operator]
    headers = (("Content-Type", "application/pkcs10"), ("Content-Transfer-Encoding", "binary"))
    assert bench.send(HttpRequest("POST", POST, headers, body)).status == 200


def test_bodies_that_are_no_request(bench: Bench) -> None:
    for body in (
        b"",
        b"%%%",
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        base64.b64encode(b"0\x82zz"),
        bench.csr(),
    ):
        answer = bench.send(HttpRequest("POST", POST, (("Content-Type", "application/pkcs10"),), body))
        assert answer.status == 400, body
        assert text(answer)
    assert not bench.world.issued


def test_a_request_that_its_own_key_did_not_sign(bench: Bench) -> None:
    csr = bytearray(bench.csr())
    csr[-1] ^= 1
    answer = bench.enroll(bytes(csr))
    assert answer.status == 400
    assert "csr" in text(answer)


def test_who_may_enroll(bench: Bench) -> None:
    assert bench.enroll(peer=bench.stranger).status == 401
    foreign = Manufacturer.create(START, bench.world.random).device(SERIAL, START)
    answer = bench.enroll(peer=bench.peer(foreign))
    assert answer.status == 403
    assert "chain." in text(answer)
    assert not bench.world.issued


def test_a_device_cannot_take_the_serial_number_of_another(bench: Bench) -> None:
    answer = bench.enroll(build(bench.key, name("gateway", serial_number="SIM-0002")))
    assert answer.status == 403
    assert "another device" in text(answer)


def test_an_empty_subject_becomes_that_of_the_idevid(bench: Bench) -> None:
    (leaf,) = certificates(bench.enroll(build(bench.key, x509.Name([]))))
    assert leaf.subject == bench.device.certificate.subject


class TestProofOfPossession:
    UNIQUE = b"finished bits"

    def enroll(self, bench: Bench, challenge: str | None, tls_unique: bytes | None) -> HttpResponse:
        return bench.enroll(bench.csr(challenge=challenge), bench.peer(tls_unique=tls_unique))

    def test_holds(self, bench: Bench) -> None:
        assert self.enroll(bench, base64.b64encode(self.UNIQUE).decode(), self.UNIQUE).status == 200

    def test_of_another_connection(self, bench: Bench) -> None:
        answer = self.enroll(bench, base64.b64encode(b"other bits").decode(), self.UNIQUE)
        assert answer.status == 400
        assert "tls-unique" in text(answer)

    def test_where_there_is_no_tls_unique(self, bench: Bench) -> None:
        assert self.enroll(bench, base64.b64encode(self.UNIQUE).decode(), None).status == 400

    def test_demanded_but_absent(self, bench: Bench) -> None:
        assert self.enroll(bench, None, self.UNIQUE).status == 200
        bench.world.est = replace(bench.world.est, template=CsrTemplate(link_tls_unique=True))
        assert self.enroll(bench, None, self.UNIQUE).status == 400


class TestReenrollment:
    def again(self, bench: Bench, by: Credential, csr: bytes | None = None) -> HttpResponse:
        return bench.enroll(csr, bench.peer(by), "simplereenroll")

    def test_same_key_and_new_key(self, bench: Bench) -> None:
        ldevid = bench.ldevid()
        assert certificates(self.again(bench, ldevid))[0].public_key() == bench.key.public_key()
        bench.key = new_key(KeyAlgorithm.P256)
        assert certificates(self.again(bench, ldevid))[0].public_key() == bench.key.public_key()

    def test_without_a_client_certificate(self, bench: Bench) -> None:
        assert bench.enroll(peer=bench.stranger, operation="simplereenroll").status == 401

    def test_with_another_subject_or_name(self, bench: Bench) -> None:
        ldevid = bench.ldevid()
        other = self.again(bench, ldevid, build(bench.key, name("other", serial_number=SERIAL)))
        assert (other.status, "subject differs" in text(other)) == (403, True)
        extra = self.again(bench, ldevid, bench.csr(san=[x509.DNSName("more.example")]))
        assert (extra.status, "subjectAltName differs" in text(extra)) == (403, True)

    def test_a_change_of_names_is_asked_for_in_its_attribute(self, bench: Bench) -> None:
        ldevid = bench.ldevid()
        subject = asn1_x509.Name.build({"common_name": "renamed"})
        names = asn1_x509.GeneralNames([asn1_x509.GeneralName("dns_name", "renamed.example")])
        change = _ChangeSubjectName({"subject": subject, "subject_alt": names})
        (leaf,) = certificates(self.again(bench, ldevid, with_attribute(bench, change.dump())))
        assert leaf.subject.rfc4514_string() == "CN=renamed"
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(san) == [x509.DNSName("renamed.example")]

    def test_an_unreadable_change_is_refused(self, bench: Bench) -> None:
        assert self.again(bench, bench.ldevid(), with_attribute(bench, b"\x30\x03\x02\x01\x05")).status == 400

    def test_a_change_that_is_not_der_is_refused(self, bench: Bench) -> None:
        answer = self.again(bench, bench.ldevid(), with_attribute(bench, b"\x30\x04\x30\x7f\x31\x00"))
        assert (answer.status, "cannot be read" in text(answer)) == (400, True)

    def test_a_change_to_other_kinds_of_names_is_refused(self, bench: Bench) -> None:
        names = asn1_x509.GeneralNames([asn1_x509.GeneralName("rfc822_name", "a@b.example")])
        change = _ChangeSubjectName({"subject_alt": names}).dump()
        answer = self.again(bench, bench.ldevid(), with_attribute(bench, change))
        assert (answer.status, "only DNS names" in text(answer)) == (400, True)

    def test_a_password_does_not_replace_the_current_certificate(self) -> None:
        bench = Bench.make(est=EstPolicy(scheme="basic", users={"op": "pw"}))
        header = ("Authorization", "Basic " + base64.b64encode(b"op:pw").decode())
        assert bench.enroll(bench.csr(), bench.stranger, "simpleenroll", header).status == 200
        answer = bench.enroll(bench.csr(), bench.stranger, "simplereenroll", header)
        assert (answer.status, "current certificate" in text(answer)) == (401, True)

    def test_revoked_expired_and_foreign(self, bench: Bench) -> None:
        ldevid = bench.ldevid()
        bench.world.revoked.add(ldevid.certificate.serial_number)
        assert "revoked" in text(self.again(bench, ldevid))
        bench.world.revoked.clear()
        bench.time.now = START + timedelta(days=91)
        expired = self.again(bench, ldevid)
        assert (expired.status, "chain.expired" in text(expired)) == (403, True)
        bench.time.now = START
        stranger = bench.world.impostor.registrar
        assert self.again(bench, stranger).status == 403


def with_attribute(bench: Bench, value: bytes) -> bytes:
    """A request that carries ChangeSubjectName, assembled by hand."""
    assert isinstance(bench.key, ec.EllipticCurvePrivateKey)
    request = asn1_csr.CertificationRequest.load(bench.csr())
    info = request["certification_request_info"]
    attribute = tlv(0x30, core.ObjectIdentifier(oids.CHANGE_SUBJECT_NAME).dump(), tlv(0x31, value))
    parts = [info[name].dump() for name in ("version", "subject", "subject_pk_info")]
    signed = tlv(0x30, *parts, tlv(0xA0, attribute))
    signature = bench.key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, signed, request["signature_algorithm"].dump(), tlv(0x03, b"\x00" + signature))


def test_usage_of_what_was_issued(bench: Bench) -> None:
    leaf = bench.ldevid().certificate
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    issuer = bench.world.domain.issuing.certificate
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier == own
    assert leaf.public_bytes(Encoding.DER) == bench.world.issued[-1].certificate.public_bytes(Encoding.DER)


def test_approval_takes_its_time_and_belongs_to_one_request() -> None:
    bench = Bench.make(est=EstPolicy(polls=2, retry_after=7))
    first, second = bench.csr(), build(new_key(KeyAlgorithm.P256), name("gateway"))
    answers = [bench.enroll(csr) for csr in (first, second, first)]
    assert [answer.status for answer in answers] == [202, 202, 202]
    assert {answer.header("Retry-After") for answer in answers} == {"7"}
    assert bench.enroll(first, bench.peer(bench.world.domain.registrar)).status == 202, "another client"
    assert not bench.world.issued
    assert bench.enroll(first).status == 200
    assert bench.enroll(second).status == 202
    assert len(bench.world.issued) == 1


def test_a_client_certificate_that_names_no_device(bench: Bench) -> None:
    assert bench.world.manufacturer.issuing is not None
    forever = Validity.starting(START, None)
    issuing, key = bench.world.manufacturer.issuing, new_key(KeyAlgorithm.P256)
    leaf = issuing.sign(name("nameless"), key.public_key(), forever, end_entity())
    nameless = bench.peer(Credential((leaf, issuing.certificate), key))
    answer = bench.enroll(peer=nameless)
    assert (answer.status, "names no device" in text(answer)) == (403, True)
    refused = bench.ask_voucher(peer=nameless)
    assert refused.status in (403, 404)
