"""CMS: what we sign openssl verifies, what openssl signs we open, and every lie is found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms as asn1
from asn1crypto import core
from hypothesis import given, settings
from hypothesis import strategies as st

import wire_pki as pki
from effort import at_least
from holdfast.wire import cms, oids
from holdfast.wire.algorithms import digest_for, sign_data
from holdfast.wire.ber import check_bounds
from holdfast.wire.cms_reading import MAX_CERTIFICATES, der_set
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError

ROOT = pki.ca("Root")
SUB = pki.ca("Sub", ROOT)
SIGNERS = {
    kind: pki.end_entity(pki.name("MASA", "1"), SUB, kind=kind) for kind in ("p256", "p384", "rsa2048")
}
MASA = SIGNERS["p256"]
VOUCHER = oids.CT_ANIMA_JSON_VOUCHER
Run = Callable[..., bytes]
CONTENT = b'{"ietf-voucher:voucher":{}}\r\n'


def sign(signer: pki.Identity = MASA, content_type: str = VOUCHER, **options: Any) -> bytes:
    return cms.sign(CONTENT, content_type, signer.key, signer.certificate, signer.above, **options)


# --- openssl, both ways ---


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("content_type", [VOUCHER, oids.CT_DATA])
def test_openssl_verifies_ours(kind: str, content_type: str, tmp_path: Path) -> None:
    made = sign(SIGNERS[kind], content_type, signing_time=pki.NOW)
    done = pki.openssl("cms", "-verify", "-noverify", "-inform", "DER", "-binary", data=made)
    assert done.stdout == CONTENT
    (tmp_path / "root").write_bytes(pki.pem(ROOT.certificate))
    chained = ("-CAfile", str(tmp_path / "root"), "-purpose", "any", "-attime", str(int(pki.NOW.timestamp())))
    assert pki.openssl("cms", "-verify", "-inform", "DER", "-binary", *chained, data=made).stdout == CONTENT
    shown = pki.openssl("cms", "-cmsout", "-print", "-inform", "DER", data=made).stdout.decode()
    assert "version: 3" in shown if content_type == VOUCHER else "version: 1" in shown


@pytest.fixture(params=SIGNERS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[pki.Identity, Run]:
    identity = SIGNERS[request.param]
    contents = {
        "key": pki.key_pem(identity.key),
        "cert": pki.pem(identity.certificate),
        "chain": pki.pem(*identity.above),
        "data": CONTENT,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    path = {name: str(tmp_path / name) for name in contents}

    def run(*extra: str) -> bytes:
        return pki.openssl(
            "cms", "-sign", "-nodetach", "-binary", "-in", path["data"], "-signer", path["cert"],
            "-inkey", path["key"], "-certfile", path["chain"], "-outform", "DER", *extra,
        ).stdout  # fmt: skip

    return identity, run


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("-keyid",),
        ("-stream",),
        ("-econtent_type", VOUCHER),
        ("-econtent_type", VOUCHER, "-stream"),
        ("-md", "sha384"),
        ("-md", "sha512"),
    ],
)
def test_we_open_what_openssl_signs(files: tuple[pki.Identity, Run], extra: tuple[str, ...]) -> None:
    identity, run = files
    opened = cms.open_signed(run(*extra))
    assert opened.content == CONTENT
    assert opened.signer == identity.certificate
    assert set(opened.certificates) == set(identity.chain)
    assert opened.content_type == (VOUCHER if VOUCHER in extra else oids.CT_DATA)
    assert opened.signing_time is not None


def test_no_attributes_only_by_consent(files: tuple[pki.Identity, Run]) -> None:
    made = files[1]("-noattr")
    with pytest.raises(RemoteProtocolError, match=r"cms\.attributes"):
        cms.open_signed(made)
    assert cms.open_signed(made, require_attributes=False).content == CONTENT
    with pytest.raises(TrustError, match=r"cms\.signature"):
        cms.open_signed(made.replace(b"ietf", b"IETF"), require_attributes=False)


def test_a_signer_that_is_not_embedded(files: tuple[pki.Identity, Run]) -> None:
    identity, run = files
    made = run("-nocerts")
    with pytest.raises(TrustError, match=r"cms\.no-signer"):
        cms.open_signed(made)
    opened = cms.open_signed(made, candidates=[SUB.certificate, identity.certificate])
    assert opened.signer == identity.certificate


def test_pss_is_read_with_honest_parameters(tmp_path: Path) -> None:
    identity = SIGNERS["rsa2048"]
    (tmp_path / "cert").write_bytes(pki.pem(identity.certificate) + pki.key_pem(identity.key))
    run = ("cms", "-sign", "-nodetach", "-binary", "-signer", str(tmp_path / "cert"), "-outform", "DER")
    pss = (*run, "-keyopt", "rsa_padding_mode:pss")
    assert cms.open_signed(pki.openssl(*pss, data=CONTENT).stdout).content == CONTENT
    mixed = pki.openssl(*pss, "-keyopt", "rsa_mgf1_md:sha1", data=CONTENT).stdout
    with pytest.raises(TrustError, match=r"cms\.algorithm"):
        cms.open_signed(mixed)


def test_weak_digests(files: tuple[pki.Identity, Run]) -> None:
    for digest in ("sha1", "sha224"):
        with pytest.raises(TrustError, match=r"cms\.algorithm"):
            cms.open_signed(files[1]("-md", digest))


def test_weak_keys(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"key\.weak"):
        cms.open_signed(sign(pki.end_entity("weak", SUB, kind="rsa1024")))


# --- lies ---


def tampered(change: Callable[[Any], None], made: bytes | None = None) -> bytes:
    info = asn1.ContentInfo.load(made or sign())
    change(info["content"])
    return bytes(info.dump(force=True))


def resigned(*attributes: tuple[str, list[Any]]) -> bytes:
    """A voucher whose signed attributes are ours to choose, honestly signed."""
    chosen = [asn1.CMSAttribute({"type": name, "values": values}) for name, values in attributes]
    signed = der_set(each.dump() for each in chosen)

    def change(data: Any) -> None:
        info = data["signer_infos"][0]
        info["signed_attrs"] = asn1.CMSAttributes(chosen)
        info["signature"] = sign_data(MASA.key, signed, digest_for(MASA.key))

    return tampered(change)


def digest_of(content: bytes) -> bytes:
    return cms._hash(digest_for(MASA.key), content)


TYPE, DIGEST = ("content_type", [VOUCHER]), ("message_digest", [digest_of(CONTENT)])


def test_the_forge_itself_is_honest() -> None:
    assert cms.open_signed(resigned(DIGEST, TYPE)).content == CONTENT
    assert cms.open_signed(tampered(lambda data: None)).content == CONTENT


@pytest.mark.parametrize(
    ("made", "error", "code"),
    [
        (lambda: resigned(TYPE), RemoteProtocolError, "cms.attributes"),
        (lambda: resigned(DIGEST), RemoteProtocolError, "cms.attributes"),
        (lambda: resigned(("content_type", [oids.CT_DATA]), DIGEST), TrustError, "cms.content-type"),
        (lambda: resigned(TYPE, ("message_digest", [digest_of(b"else")])), TrustError, "cms.digest"),
        (lambda: resigned(TYPE, TYPE, DIGEST), RemoteProtocolError, "cms.syntax"),
        (lambda: resigned(TYPE, DIGEST, DIGEST), RemoteProtocolError, "cms.syntax"),
        (lambda: resigned(TYPE, (DIGEST[0], DIGEST[1] * 2)), RemoteProtocolError, "cms.syntax"),
    ],
)
def test_signed_attributes_are_checked(made: Run, error: type[HoldfastError], code: str) -> None:
    with pytest.raises(error) as caught:
        cms.open_signed(made())
    assert caught.value.code == code


def flip_signature(data: Any) -> None:
    info = data["signer_infos"][0]
    info["signature"] = bytes(info["signature"])[:-1] + bytes([bytes(info["signature"])[-1] ^ 1])


def drop_certificates(data: Any) -> None:
    data["certificates"] = asn1.CertificateSet([])


def two_signers(data: Any) -> None:
    data["signer_infos"] = asn1.SignerInfos([data["signer_infos"][0]] * 2)


def no_signers(data: Any) -> None:
    data["signer_infos"] = asn1.SignerInfos([])


def other_algorithm(data: Any) -> None:
    data["signer_infos"][0]["signature_algorithm"] = {"algorithm": "sha384_ecdsa"}


def rsa_algorithm(data: Any) -> None:
    data["signer_infos"][0]["signature_algorithm"] = {"algorithm": "sha256_rsa", "parameters": core.Null()}


def other_content(data: Any) -> None:
    data["encap_content_info"]["content"] = core.ParsableOctetString(CONTENT + b" ")


def other_content_type(data: Any) -> None:
    data["encap_content_info"]["content_type"] = "1.2.3.4"


def detached(data: Any) -> None:
    data["encap_content_info"] = asn1.EncapsulatedContentInfo({"content_type": VOUCHER})


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        (flip_signature, TrustError, "cms.signature"),
        (drop_certificates, TrustError, "cms.no-signer"),
        (two_signers, RemoteProtocolError, "cms.signers"),
        (no_signers, RemoteProtocolError, "cms.signers"),
        (other_algorithm, TrustError, "cms.algorithm"),
        (rsa_algorithm, TrustError, "cms.algorithm"),
        (other_content, TrustError, "cms.digest"),
        (other_content_type, TrustError, "cms.content-type"),
        (detached, RemoteProtocolError, "cms.detached"),
    ],
)
def test_lies(change: Callable[[Any], None], error: type[HoldfastError], code: str) -> None:
    with pytest.raises(error) as caught:
        cms.open_signed(tampered(change))
    assert caught.value.code == code


def test_another_key_under_the_same_name_and_number() -> None:
    number = MASA.certificate.serial_number
    twin = pki.certificate(pki.name("MASA", "1"), pki.new_key(), SUB, serial=number)

    def swap(data: Any) -> None:
        data["certificates"] = cms._certificate_set([twin.certificate])

    def both(data: Any) -> None:
        data["certificates"] = cms._certificate_set([twin.certificate, MASA.certificate])

    with pytest.raises(TrustError, match=r"cms\.signature"):
        cms.open_signed(tampered(swap))
    with pytest.raises(TrustError, match="two certificates"):
        cms.open_signed(tampered(both))


def test_the_signer_is_told_by_issuer_and_number() -> None:
    sibling = pki.certificate("sibling", pki.new_key(), SUB).certificate
    number = MASA.certificate.serial_number
    cousin = pki.certificate("cousin", pki.new_key(), ROOT, serial=number).certificate
    made = cms.sign(CONTENT, VOUCHER, MASA.key, MASA.certificate, (sibling, cousin))
    assert cms.open_signed(made).signer == MASA.certificate


def test_content_that_poses_as_attributes() -> None:
    """Without attributes the content itself is signed, so a signature over attributes must not carry over."""
    attributes = asn1.CMSAttributes(
        [
            {"type": "content_type", "values": [VOUCHER]},
            {"type": "message_digest", "values": [digest_of(CONTENT)]},
        ]
    ).dump()

    def strip(data: Any) -> None:
        info = data["signer_infos"][0]
        info["signed_attrs"] = None
        data["encap_content_info"]["content"] = core.ParsableOctetString(attributes)

    with pytest.raises(RemoteProtocolError, match=r"cms\.attributes"):
        cms.open_signed(tampered(strip))
    with pytest.raises(TrustError, match=r"cms\.content-type"):
        cms.open_signed(tampered(strip), require_attributes=False)


def test_our_own_mistakes() -> None:
    with pytest.raises(LocalProtocolError, match=r"cms\.key-mismatch"):
        cms.sign(CONTENT, VOUCHER, SUB.key, MASA.certificate)
    with pytest.raises(LocalProtocolError, match=r"cms\.no-certificates"):
        cms.certs_only(())


# --- bounds ---


def test_size_and_trailing_data() -> None:
    made = sign()
    assert cms.open_signed(made, limit=len(made))
    with pytest.raises(RemoteProtocolError, match=r"cms\.too-large"):
        cms.open_signed(made, limit=len(made) - 1)
    for bad in (b"", made[:-1], made + b"\0", made + made, b"-----BEGIN CMS-----", b'{"a":1}'):
        with pytest.raises(RemoteProtocolError, match=r"cms\.syntax"):
            cms.open_signed(bad)


@pytest.mark.parametrize("bomb", [b"\x30\x80" * 100_000, b"\x24\x80" * 50_000 + b"\0\0" * 50_000])
def test_nesting_is_bounded(bomb: bytes) -> None:
    for read in (cms.open_signed, cms.parse_certs_only):
        with pytest.raises(RemoteProtocolError, match=r"cms\.syntax"):
            read(bomb)


def test_nesting_where_nobody_looks_is_bounded_too() -> None:
    deep = b"\x05\x00"
    for _ in range(30):
        deep = b"\x30" + bytes([len(deep)]) + deep

    def unsigned(data: Any) -> None:
        attribute = asn1.CMSAttribute({"type": "1.2.3.4", "values": [core.Sequence.load(deep)]})
        data["signer_infos"][0]["unsigned_attrs"] = asn1.CMSAttributes([attribute])

    with pytest.raises(RemoteProtocolError, match="nested deeper"):
        cms.open_signed(tampered(unsigned))


def test_ber_bounds() -> None:
    for good in ("0500", "3000", "30800000", "308005000000", "300430800000", "3081020500"):
        check_bounds(bytes.fromhex(good))
    bad = "05 0501 050000 3001 30020501 3080 30800500 0580 1f0100 30ff00 3005308005000000 300230800000 0000ff"
    for each in ("", *bad.split()):
        with pytest.raises(ValueError, match=r"."):
            check_bounds(bytes.fromhex(each))
    with pytest.raises(ValueError, match="more than"):
        check_bounds(b"\x30\x82\x10\x00" + b"\x05\x00" * 2048, values=2048)
    check_bounds(b"\x30\x82\x10\x00" + b"\x05\x00" * 2048, values=2049)


def test_too_many_certificates() -> None:
    many = [
        pki.certificate(f"c{number}", MASA.key, None).certificate for number in range(MAX_CERTIFICATES + 1)
    ]
    assert len(cms.parse_certs_only(cms.certs_only(many[:-1]))) == MAX_CERTIFICATES
    with pytest.raises(RemoteProtocolError, match=r"cms\.syntax"):
        cms.parse_certs_only(cms.certs_only(many))


# --- certs-only ---


def test_certs_only_round_trip_and_openssl() -> None:
    made = cms.certs_only((*MASA.chain, MASA.certificate))
    assert set(cms.parse_certs_only(made)) == set(MASA.chain)
    shown = pki.openssl("pkcs7", "-inform", "DER", "-print_certs", data=made).stdout
    assert shown.count(b"BEGIN CERTIFICATE") == len(MASA.chain)


def test_certs_only_of_openssl(tmp_path: Path) -> None:
    (tmp_path / "chain").write_bytes(pki.pem(*MASA.chain))
    made = pki.openssl("crl2pkcs7", "-nocrl", "-certfile", str(tmp_path / "chain"), "-outform", "DER").stdout
    assert set(cms.parse_certs_only(made)) == set(MASA.chain)


def test_certs_only_means_only_certificates() -> None:
    made = cms.certs_only(MASA.chain)

    def content(data: Any) -> None:
        data["encap_content_info"] = {"content_type": "data", "content": core.OctetString(b"x")}

    def content_type(data: Any) -> None:
        data["encap_content_info"] = {"content_type": "enveloped_data"}

    def version(data: Any) -> None:
        data["version"] = 2

    def signed_nothing(data: Any) -> None:
        data["signer_infos"] = asn1.ContentInfo.load(sign())["content"]["signer_infos"]

    for bad, code in (
        (sign(), "cms.not-certs-only"),
        (tampered(content, made), "cms.not-certs-only"),
        (tampered(content_type, made), "cms.not-certs-only"),
        (tampered(version, made), "cms.syntax"),
        (tampered(signed_nothing, made), "cms.not-certs-only"),
        (tampered(drop_certificates, made), "cms.no-certificates"),
        (made + b"\n", "cms.syntax"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            cms.parse_certs_only(bad)
        assert caught.value.code == code


def test_a_certificate_that_comes_twice_counts_once() -> None:
    def twice(data: Any) -> None:
        data["certificates"] = asn1.CertificateSet([data["certificates"][0]] * 2)

    made = cms.certs_only(MASA.chain[:1])
    assert cms.parse_certs_only(tampered(twice, made)) == MASA.chain[:1]


def test_indefinite_lengths_are_read() -> None:
    """Bouncy Castle writes CMS so; the certificates inside stay DER."""
    certificates = b"\xa0\x80" + b"".join(map(pki.der, MASA.chain)) + b"\0\0"
    data = bytes.fromhex("020101 3100 3080 0609 2a864886f70d010701 0000") + certificates + b"\x31\x00"
    made = bytes.fromhex("3080 0609 2a864886f70d010702 a080 3080") + data + b"\0\0" * 3
    assert cms.parse_certs_only(made) == MASA.chain


# --- properties ---


@given(
    content=st.binary(max_size=400),
    moment=st.none() | st.datetimes(datetime(1951, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    content_type=st.sampled_from([VOUCHER, oids.CT_DATA, "1.2.840.113549.1.9.16.1.4", "1.3.6.1.4.1.99999.1"]),
)
def test_round_trip(content: bytes, moment: datetime | None, content_type: str) -> None:
    made = cms.sign(content, content_type, MASA.key, MASA.certificate, MASA.above, signing_time=moment)
    opened = cms.open_signed(made)
    assert (opened.content, opened.content_type, opened.signer) == (content, content_type, MASA.certificate)
    assert opened.signing_time == (moment and moment.replace(microsecond=0))


@settings(max_examples=at_least(300))
@given(st.binary(max_size=300))
def test_garbage(garbage: bytes) -> None:
    for read in (cms.open_signed, cms.parse_certs_only):
        with pytest.raises(HoldfastError):
            read(garbage)
