"""device-attest-01: in each test one rule of the TPM statement is broken, and it proves nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire import csr
from holdfast.wire.acme.attest import TpmStatement, judge, read_object, require_same_key, write_object
from holdfast.wire.acme.authorize import ChallengeFailed
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.acme.session import AcmeProblem
from holdfast.wire.device_names import hardware_module_name
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import Issued, Rejected
from holdfast.wire.tpm.public import parse_public
from wire.acme_parties import MOMENT, NOW, Case
from wire.tpm_statements import (
    SIGNING,
    Authority,
    SoftTpm,
    name_of,
    new_key,
    public_area,
    signature_of,
    statement_of,
)

AUTHORIZATION = "token.thumbprint"
EXTRA = hashlib.sha256(AUTHORIZATION.encode()).digest()
AUTHORITY = Authority(NOW)
TPM = SoftTpm(AUTHORITY)
DEVICE = Identifier("permanent-identifier", "SN-17")


def judged(statement: TpmStatement, *, identifier: str | None = "SN-17") -> Any:
    return judge(statement, AUTHORIZATION, (AUTHORITY.certificate,), MOMENT, identifier=identifier)


def refused(statement: TpmStatement, code: str) -> None:
    with pytest.raises(HoldfastError) as caught:
        judged(statement)
    assert caught.value.code == code


def area_of(attributes: int = SIGNING) -> bytes:
    return public_area(TPM.key.public_key(), attributes)


def stated(area: bytes, **fields: Any) -> TpmStatement:
    return TPM.stated(area, statement_of(name_of(area), EXTRA, **fields))


def leaf(**options: Any) -> TpmStatement:
    return TPM.with_leaf(TPM.certify(AUTHORIZATION), AUTHORITY.ak(TPM.ak.public_key(), **options))


def test_the_faultless_statement_is_believed() -> None:
    """Each one below differs from it in one thing."""
    attested = judged(TPM.certify(AUTHORIZATION))
    assert attested.public.key == TPM.key.public_key()
    assert judged(TPM.certify(AUTHORIZATION), identifier=None).public.key == TPM.key.public_key()


BROKEN: dict[str, tuple[Callable[[], TpmStatement], str]] = {
    "made for another challenge": (lambda: TPM.certify("other.thumbprint"), "attest.extra-data"),
    "about another key": (
        lambda: TPM.stated(area_of(), statement_of(name_of(public_area(new_key().public_key())), EXTRA)),
        "attest.name",
    ),
    "not made inside a TPM": (lambda: stated(area_of(), magic=0xFF544348), "attest.magic"),
    "a quote, not a certification": (lambda: stated(area_of(), kind=0x8018), "attest.type"),
    "signed by somebody else": (
        lambda: replace(
            TPM.certify(AUTHORIZATION),
            signature=signature_of(new_key(), TPM.certify(AUTHORIZATION).statement),
        ),
        "attest.signature",
    ),
    "tampered with": (
        lambda: replace(
            TPM.certify(AUTHORIZATION), statement=TPM.certify(AUTHORIZATION).statement[:-1] + b"\xff"
        ),
        "attest.signature",
    ),
    "another algorithm than stated": (
        lambda: replace(TPM.certify(AUTHORIZATION), algorithm=-35),
        "attest.algorithm",
    ),
    "an RSA algorithm for an EC key": (
        lambda: replace(TPM.certify(AUTHORIZATION), algorithm=-257),
        "attest.algorithm",
    ),
    "SHA-1": (lambda: replace(TPM.certify(AUTHORIZATION), algorithm=-65535), "attest.algorithm"),
    "a key that can leave its TPM": (lambda: stated(area_of(SIGNING & ~0x2)), "attest.attributes"),
    "a key that can change its parent": (lambda: stated(area_of(SIGNING & ~0x10)), "attest.attributes"),
    "a key that was imported": (lambda: stated(area_of(SIGNING & ~0x20)), "attest.attributes"),
    "a key that does not sign": (lambda: stated(area_of(SIGNING & ~0x40000)), "attest.attributes"),
    "an AK of an unknown CA": (
        lambda: TPM.with_leaf(TPM.certify(AUTHORIZATION), Authority(NOW).ak(TPM.ak.public_key())),
        "chain.bad-signature",
    ),
    "an AK whose certificate has ended": (lambda: leaf(end=timedelta(hours=-1)), "chain.expired"),
    "an AK certificate without the usage": (lambda: leaf(usage=None), "chain.usage"),
    "an AK certificate of another usage": (
        lambda: leaf(usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        "chain.usage",
    ),
    "an AK that is a CA": (lambda: leaf(ca=True), "chain.is-ca"),
    "an AK certificate without names": (lambda: leaf(san=False), "attest.profile"),
    "an AK certificate with names that may be ignored": (lambda: leaf(critical=False), "attest.profile"),
    "an AK of another device": (lambda: leaf(identifier="SN-18"), "attest.identifier"),
    "a key that cannot be read": (
        lambda: replace(TPM.certify(AUTHORIZATION), public=b"\0" * 8),
        "tpm.algorithm",
    ),
    "a statement that ends early": (
        lambda: TPM.stated(area_of(), b"\xff\x54\x43\x47\x80\x17\x00"),
        "tpm.syntax",
    ),
    "a certificate that is none": (
        lambda: replace(TPM.certify(AUTHORIZATION), chain=(b"no",)),
        "attest.syntax",
    ),
}


@pytest.mark.parametrize(("broken", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_one_broken_rule(broken: Callable[[], TpmStatement], code: str) -> None:
    refused(broken(), code)


def test_the_csr_must_be_for_the_attested_key() -> None:
    public = parse_public(area_of())
    request = csr.parse(csr.build(new_key(), x509.Name([])))
    with pytest.raises(TrustError, match="other-key"):
        require_same_key(public, request)
    require_same_key(public, csr.parse(csr.build(TPM.key, x509.Name([]))))


# --- the object


def test_an_object_is_read_as_it_was_written() -> None:
    statement = TPM.certify(AUTHORIZATION)
    assert read_object(write_object(statement)) == statement


def attributes(**changed: Any) -> bytes:
    whole = cbor2.loads(write_object(TPM.certify(AUTHORIZATION)))
    return cbor2.dumps({**whole, "attStmt": {**whole["attStmt"], **changed}})


OBJECTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "attest.syntax"),
    "no map": (cbor2.dumps([1]), "attest.syntax"),
    "another format": (cbor2.dumps({"fmt": "apple", "attStmt": {}}), "attest.format"),
    "no statement": (cbor2.dumps({"fmt": "tpm"}), "attest.syntax"),
    "another version": (attributes(ver="1.2"), "attest.syntax"),
    "no algorithm": (attributes(alg=None), "attest.syntax"),
    "a text for a signature": (attributes(sig="text"), "attest.syntax"),
    "no certificates": (attributes(x5c=[]), "attest.syntax"),
    "too many certificates": (attributes(x5c=[b"x"] * 9), "attest.syntax"),
    "texts for certificates": (attributes(x5c=["x"]), "attest.syntax"),
    "something behind it": (write_object(TPM.certify(AUTHORIZATION)) + b"\0", "attest.syntax"),
    "cut off": (write_object(TPM.certify(AUTHORIZATION))[:-1], "attest.syntax"),
    "too long": (b"\0" * 70_000, "attest.too-large"),
    "a bomb of lengths": (b"\x9b\x7f" + b"\xff" * 7, "attest.syntax"),
    "a deep nest": (b"\x81" * 60_000, "attest.syntax"),
}


@pytest.mark.parametrize(("data", "code"), OBJECTS.values(), ids=OBJECTS.keys())
def test_an_object_that_cannot_be_read(data: bytes, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_object(data)
    assert caught.value.code == code


def test_unknown_members_are_ignored() -> None:
    statement = TPM.certify(AUTHORIZATION)
    whole = cbor2.loads(write_object(statement))
    assert read_object(cbor2.dumps({**whole, "authData": b"x", "extra": 1})) == statement


# --- the whole order


def device_case(tpm: SoftTpm = TPM, **options: Any) -> Case:
    case = Case(
        identifiers=(DEVICE,),
        prefer=("device-attest-01",),
        key=tpm.key,
        attest=tpm.attest,
        solver=None,
        **options,
    )
    policy = case.world.acme.policy
    case.world.acme.policy = replace(policy, attestation_anchors=(AUTHORITY.certificate,))
    return case


def test_a_device_gets_a_certificate_for_its_attested_key() -> None:
    case = device_case()
    outcome = case.enroll()
    assert isinstance(outcome, Issued)
    assert outcome.chain[0].public_key() == TPM.key.public_key()


def test_a_device_is_ordered_as_a_hardware_module() -> None:
    case = device_case(hardware_type="1.3.6.1.4.1.99999.1")
    outcome = case.enroll()
    assert isinstance(outcome, Issued)
    san = outcome.chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [hardware_module_name("SN-17", "1.3.6.1.4.1.99999.1")]
    (order,) = case.world.acme.orders.values()
    assert order.identifiers == (("hardware-module", "SN-17/1.3.6.1.4.1.99999.1"),)


@pytest.mark.parametrize("oid", ["", "not-an-oid", "1.2/3"])
def test_a_hardware_module_without_a_type_is_malformed(oid: str) -> None:
    with pytest.raises(AcmeProblem) as caught:
        device_case(hardware_type=oid).enroll()
    assert caught.value.kind == "malformed"


def test_a_server_that_does_not_know_the_attestation_ca_refuses() -> None:
    case = device_case()
    case.world.acme.policy = replace(
        case.world.acme.policy, attestation_anchors=(Authority(NOW).certificate,)
    )
    with pytest.raises(ChallengeFailed) as caught:
        case.enroll()
    assert caught.value.code == "acme.bad-attestation-statement"


def test_a_device_of_nobody_is_refused() -> None:
    case = device_case()
    case.world.acme.policy = replace(case.world.acme.policy, devices=frozenset({"SN-99"}))
    with pytest.raises(ChallengeFailed) as caught:
        case.enroll()
    assert "rejectedIdentifier" in caught.value.detail


def test_another_key_than_the_attested_one_is_refused() -> None:
    case = device_case()
    case.key = new_key()
    outcome = case.enroll()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "acme.bad-csr"


def test_a_key_store_that_cannot_attest_says_so() -> None:
    case = device_case()
    case.attest = None
    with pytest.raises(LocalProtocolError, match="cannot attest"):
        case.enroll()
