"""The examples of RFC 8995 and RFC 7030, which none of our code made (tests/vectors/PROVENANCE.md)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.wire import cms, csr, oids
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import TrustError
from holdfast.wire.model import ClockState, Moment

VECTORS = Path(__file__).parent.parent / "vectors"
THEN = datetime(2021, 4, 28, tzinfo=UTC)
AT = Moment(THEN, THEN, ClockState.TRUSTED)


def pem(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((VECTORS / "brski" / f"rfc8995-{name}.pem").read_bytes())


@pytest.mark.parametrize(
    ("example", "signer", "root", "rule", "key"),
    [
        (
            "voucher",
            "highway-test.example.com MASA",
            "vendor-ca",
            Rule.voucher_signer(),
            b"ietf-voucher:voucher",
        ),
        ("pledge-request", "", "vendor-ca", Rule.client(), b"ietf-voucher-request:voucher"),
        ("registrar-request", "fountain-test.example.com", "owner-ca", Rule.registrar(), b"proximity"),
    ],
)
def test_rfc8995_examples(example: str, signer: str, root: str, rule: Rule, key: bytes) -> None:
    encoded = (VECTORS / "brski" / f"rfc8995-{example}.der").read_bytes()
    opened = cms.open_signed(encoded)
    assert key in opened.content
    assert opened.content_type == oids.CT_DATA
    assert opened.signing_time is not None
    assert opened.signing_time.date().isoformat() == "2021-04-13"
    common = opened.signer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert "".join(str(each.value) for each in common) == signer
    path = validate((opened.signer, *opened.certificates), (pem(root),), AT, rule)
    assert path[-1] == pem(root)
    with pytest.raises(TrustError, match=r"cms\.digest"):
        cms.open_signed(encoded.replace(b"created-on", b"created-no"))


def test_a_device_of_the_examples_may_not_sign_vouchers() -> None:
    with pytest.raises(TrustError, match=r"chain\.device"):
        validate((pem("idevid"),), (pem("vendor-ca"),), AT, Rule.voucher_signer())


def test_the_registrar_of_the_examples_ends_up_pinned() -> None:
    registrar = (pem("registrar"),)
    assert validate(registrar, registrar, AT, Rule.tls_server_any_name()) == registrar
    day_after = datetime(2022, 2, 25, tzinfo=UTC)
    late = Moment(day_after, day_after, ClockState.UNKNOWN)
    with pytest.raises(TrustError, match=r"chain\.expired"):
        validate(registrar, registrar, late, Rule.tls_server_any_name())


def est(name: str) -> bytes:
    return base64.b64decode((VECTORS / "est" / f"rfc7030-{name}.b64").read_bytes())


def test_rfc7030_certificates_are_read() -> None:
    names = {each.subject.rfc4514_string() for each in cms.parse_certs_only(est("a1-cacerts"))}
    assert names == {f"CN=estExampleCA {which}" for which in ("OwO", "OwN", "NwO", "NwN")}
    assert len(cms.parse_certs_only(est("a3-response"))) == 1


def test_rfc7030_request_is_of_another_age() -> None:
    with pytest.raises(TrustError, match=r"signature\.weak"):
        csr.parse(est("a3-request"))
