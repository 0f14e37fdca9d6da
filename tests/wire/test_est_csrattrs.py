"""CSR attributes: foreign vectors, a foreign codec in both directions, and what is refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der.decoder import decode as foreign_decode
from pyasn1.codec.der.encoder import encode as foreign_encode
from pyasn1.type import char, univ
from pyasn1_alt_modules import rfc5280, rfc7030, rfc9908

from holdfast.wire import oids
from holdfast.wire.authorities import split_authorities
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError
from holdfast.wire.est import asn1
from holdfast.wire.est.csrattrs import MAX_ELEMENTS, encode_csrattrs, parse_csrattrs
from holdfast.wire.est.messages import decode_body, read_certs
from holdfast.wire.model import CsrTemplate, HttpResponse, KeyAlgorithm

VECTORS = Path(__file__).parents[1] / "vectors" / "est"
SAN = "2.5.29.17"
EKU = "2.5.29.37"
P256 = "1.2.840.10045.3.1.7"

NAMES = x509.Extension(
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    False,
    x509.SubjectAlternativeName([x509.DNSName("www.myServer.com")]),
)
USAGE = x509.Extension(
    ExtensionOID.KEY_USAGE,
    True,
    x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=True, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    ),
)  # fmt: skip


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.b64").read_bytes()


def wishes(name: str) -> CsrTemplate:
    return parse_csrattrs(decode_body(vector(name)))


def test_rfc_9908_section_5_1_asks_for_an_acp_node_name() -> None:
    template = wishes("rfc9908-5.1")
    (extension,) = template.extensions
    assert replace(template, extensions=()) == CsrTemplate()
    assert extension.critical
    (node,) = extension.value  # type: ignore[attr-defined]
    assert node.type_id.dotted_string == "1.3.6.1.5.5.7.8.10"
    assert node.value[2:] == b"rfc8994+fd739fc23c3440112233445500000000+@acp.example.com"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rfc9908-5.2", CsrTemplate(key=KeyAlgorithm.P384, digest="sha384", link_tls_unique=True,
                                    unknown=("1.3.6.1.1.1.1.22",))),
        # P-521 is no key of the product: it is named, not replaced by another.
        ("rfc9908-5.3", CsrTemplate(digest="sha512", link_tls_unique=True,
                                    unknown=("1.3.132.0.35", "1.2.840.113549.1.9.20",
                                             "0.9.2342.19200300.100.1.5", "2.5.4.5"))),
        ("rfc9908-5.4", CsrTemplate(digest="sha256", link_tls_unique=True,
                                    unknown=("1.2.840.113549.1.1.1",))),
        ("rfc9908-5.5", CsrTemplate(key=KeyAlgorithm.P384, digest="sha384", link_tls_unique=True,
                                    unknown=("2.5.4.5",))),
        # Its id-ExtensionReq holds a bare OID (RFC 9908 §5.2 corrects it).
        ("rfc7030-4.5.2-csrattrs", CsrTemplate(key=KeyAlgorithm.P384, digest="sha384", link_tls_unique=True,
                                               unknown=("1.3.6.1.1.1.1.22",))),
        ("rfc7030-a2-csrattrs", CsrTemplate(digest="sha384", link_tls_unique=True,
                                            unknown=("1.3.6.1.1.1.1.22", "2.999.1", "2.999.2",
                                                     "1.3.36.3.3.2.8.1.1.11"))),
    ],
)  # fmt: skip
def test_examples_of_the_rfcs(name: str, expected: CsrTemplate) -> None:
    assert wishes(name) == expected


def test_the_ca_certificates_of_rfc_7030_appendix_a_1() -> None:
    """Both roots, signed with SHA-1, and the two certificates that link them. Those lack basicConstraints,
    so no path can use them."""
    resp = HttpResponse(200, (("Content-Type", "application/pkcs7-mime"),), vector("rfc7030-a1-cacerts"))
    certificates = read_certs(resp)
    assert len(certificates) == 4
    parts = split_authorities(certificates)
    assert [c.subject.rfc4514_string() for c in parts.roots] == ["CN=estExampleCA NwN", "CN=estExampleCA OwO"]
    assert parts.intermediates == ()


def test_the_enrollment_of_rfc_7030_appendix_a_3_is_read() -> None:
    request = x509.load_der_x509_csr(decode_body(vector("rfc7030-a3-request")))
    resp = HttpResponse(
        200,
        (("Content-Type", "application/pkcs7-mime; smime-type=certs-only"),),
        vector("rfc7030-a3-response"),
    )
    (leaf,) = read_certs(resp)
    assert leaf.public_key() == request.public_key()


# --- a codec that is not ours


def foreign_template() -> bytes:
    """The example at the end of RFC 9908 §3.4, built by pyasn1."""
    info = rfc9908.CertificationRequestInfoTemplate()
    info["version"] = 0
    for at, (oid, value) in enumerate([("2.5.4.3", None), ("2.5.4.11", "myDept"), ("2.5.4.11", "myGroup")]):
        single = rfc9908.SingleAttributeTemplate()
        single["type"] = univ.ObjectIdentifier(oid)
        if value is not None:
            single["value"] = univ.Any(foreign_encode(char.UTF8String(value)))
        info["subject"]["rdnSequence"][at][0] = single
    info["subjectPKInfo"]["algorithm"]["algorithm"] = univ.ObjectIdentifier("1.2.840.10045.2.1")
    info["subjectPKInfo"]["algorithm"]["parameters"] = univ.Any(foreign_encode(univ.ObjectIdentifier(P256)))
    request = rfc9908.ExtensionReqTemplate()
    request[0]["extnID"] = rfc5280.id_ce_subjectAltName
    names = rfc5280.SubjectAltName()
    names[0]["dNSName"] = "www.myServer.com"
    names[1]["iPAddress"] = b""
    request[0]["extnValue"] = foreign_encode(names)
    request[1]["extnID"] = rfc5280.id_ce_keyUsage
    request[1]["critical"] = True
    request[1]["extnValue"] = foreign_encode(rfc5280.KeyUsage("digitalSignature,keyAgreement"))
    request[2]["extnID"] = rfc5280.id_ce_extKeyUsage
    info["attributes"][0] = foreign_attribute(str(rfc9908.id_aa_extensionReqTemplate), request)
    return foreign_wishes(foreign_attribute(str(rfc9908.id_aa_certificationRequestInfoTemplate), info))


def foreign_attribute(oid: str, value: Any) -> Any:
    attribute = rfc5280.Attribute()
    attribute["type"] = univ.ObjectIdentifier(oid)
    attribute["values"][0] = univ.Any(foreign_encode(value))
    return attribute


def foreign_wishes(*attributes: Any) -> bytes:
    return b"".join([b"\x30", _length(b"".join(map(foreign_encode, attributes)))])


def _length(contents: bytes) -> bytes:
    size = len(contents)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes([size]) if size < 128 else bytes([0x80 + len(octets)]) + octets
    return head + contents


EXAMPLE = CsrTemplate(
    key=KeyAlgorithm.P256,
    subject=(("2.5.4.3", None), ("2.5.4.11", "myDept"), ("2.5.4.11", "myGroup")),
    extensions=(NAMES, USAGE),
    fill_extensions=(SAN, EKU),
)


def test_the_template_of_rfc_9908_from_a_foreign_encoder() -> None:
    assert parse_csrattrs(foreign_template()) == EXAMPLE


def test_our_template_is_octet_for_octet_the_foreign_one() -> None:
    assert encode_csrattrs(EXAMPLE) == foreign_template()


@pytest.mark.parametrize("key", list(KeyAlgorithm))
def test_a_foreign_decoder_reads_our_template(key: KeyAlgorithm) -> None:
    attrs, rest = foreign_decode(encode_csrattrs(replace(EXAMPLE, key=key)), asn1Spec=rfc7030.CsrAttrs())
    assert not rest
    values = attrs[0]["attribute"]["attrValues"]
    info, rest = foreign_decode(values[0], asn1Spec=rfc9908.CertificationRequestInfoTemplate())
    assert not rest
    placeholder = info["subjectPKInfo"]["subjectPublicKey"]
    assert placeholder.isValue is (key in (KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072))
    if placeholder.isValue:
        rsa, _ = foreign_decode(placeholder.asOctets(), asn1Spec=univ.Sequence())
        assert f"rsa{int(rsa[0]).bit_length()}" == key.value


def test_a_foreign_decoder_reads_our_flat_list() -> None:
    flat = CsrTemplate(key=KeyAlgorithm.RSA3072, digest="sha512", extensions=(USAGE,), link_tls_unique=True)
    attrs, rest = foreign_decode(encode_csrattrs(flat, "7030"), asn1Spec=rfc7030.CsrAttrs())
    assert not rest
    assert [entry.getName() for entry in attrs] == ["attribute", "attribute", "oid", "oid"]
    assert str(attrs[3]["oid"]) == "1.2.840.113549.1.1.13"


# --- our codec against itself

TEXT = st.text(alphabet="abcXYZ 019.-", min_size=1, max_size=20)
OID = st.from_regex(r"1\.3\.6\.1\.4\.1\.[1-9][0-9]{0,5}", fullmatch=True)
EXTENSIONS = st.lists(st.sampled_from([NAMES, USAGE]), unique_by=lambda e: e.oid).map(tuple)


@st.composite
def templates(draw: st.DrawFn, style: str) -> CsrTemplate:
    subject = st.none() | st.lists(st.tuples(OID, st.none() | TEXT), min_size=1, max_size=5).map(tuple)
    extensions = draw(EXTENSIONS)
    fill = draw(st.sampled_from([(), (EKU,), (SAN,), (SAN, EKU)]))
    if style == "7030" and NAMES in extensions:
        fill = tuple(o for o in fill if o != SAN)
    return CsrTemplate(
        key=draw(st.none() | st.sampled_from(KeyAlgorithm)),
        digest=draw(st.sampled_from([None, "sha256", "sha384", "sha512"])) if style == "7030" else None,
        subject=draw(subject) if style == "9908" else None,
        extensions=extensions,
        fill_extensions=fill,
        link_tls_unique=draw(st.booleans()),
        unknown=tuple(draw(st.lists(OID, unique=True, max_size=4))),
    )


def in_one_order(template: CsrTemplate) -> CsrTemplate:
    """A SET has no order of its own, so OIDs may come back in another."""
    return replace(
        template,
        unknown=tuple(sorted(template.unknown)),
        fill_extensions=tuple(sorted(template.fill_extensions)),
        extensions=tuple(sorted(template.extensions, key=lambda e: e.oid.dotted_string)),
    )


@given(templates("9908"))
def test_templates_come_back(template: CsrTemplate) -> None:
    assert in_one_order(parse_csrattrs(encode_csrattrs(template))) == in_one_order(template)


@given(templates("7030"))
def test_flat_lists_come_back(template: CsrTemplate) -> None:
    assert in_one_order(parse_csrattrs(encode_csrattrs(template, "7030"))) == in_one_order(template)


def test_what_a_style_cannot_say_is_not_left_out() -> None:
    with pytest.raises(LocalProtocolError, match=r"^est\.csrattrs-style"):
        encode_csrattrs(CsrTemplate(digest="sha256"))
    with pytest.raises(LocalProtocolError, match=r"^est\.csrattrs-style"):
        encode_csrattrs(CsrTemplate(subject=()), "7030")
    with pytest.raises(LocalProtocolError, match=r"^est\.csrattrs-style"):
        encode_csrattrs(CsrTemplate(extensions=(USAGE,), fill_extensions=("2.5.29.15",)))


# --- rules


def flat(*items: bytes) -> bytes:
    return asn1.sequence(list(items))


def oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


def attribute(kind: str, *values: bytes) -> bytes:
    return asn1.sequence([oid(kind), b"\x31" + _length(b"".join(values))])


def template_of(*parts: bytes) -> bytes:
    return flat(attribute(oids.CSR_INFO_TEMPLATE, asn1.sequence(list(parts))))


V1 = b"\x02\x01\x00"


def inner(*attributes: bytes) -> bytes:
    return b"\xa1" + _length(b"".join(attributes))


def test_a_template_stands_alone() -> None:
    """RFC 9908 §4: who understands the template ignores all other elements."""
    theirs = asn1.split(foreign_template()[3:])[0]
    both = flat(oid(oids.CHALLENGE_PASSWORD), attribute("1.2.840.10045.2.1", oid("1.3.132.0.34")), theirs)
    assert parse_csrattrs(both) == EXAMPLE


def test_key_types_without_parameters_mean_the_smallest_that_fits() -> None:
    assert parse_csrattrs(flat(attribute("1.2.840.10045.2.1"))).key is KeyAlgorithm.P256
    assert parse_csrattrs(flat(oid("1.2.840.113549.1.1.1"))).key is KeyAlgorithm.RSA2048


def test_the_first_key_that_can_be_made_counts() -> None:
    curves = [attribute("1.2.840.10045.2.1", oid(c)) for c in ("1.3.132.0.35", "1.3.132.0.34", P256)]
    template = parse_csrattrs(flat(*curves))
    assert template.key is KeyAlgorithm.P384
    assert template.unknown == ("1.3.132.0.35",)


@pytest.mark.parametrize("empty", ["8200", "8700", "8100", "8600", "a4023000"])
def test_names_left_empty_are_the_clients(empty: str) -> None:
    value = core.OctetString(asn1.sequence([bytes.fromhex(empty)])).dump()
    extension = asn1.sequence([asn1.sequence([oid(SAN), value])])
    template = parse_csrattrs(flat(attribute(oids.EXTENSION_REQUEST_TEMPLATE, extension)))
    assert template == CsrTemplate(fill_extensions=(SAN,))


def test_a_single_extension_template_without_its_sequence_is_read() -> None:
    """RFC 9908 §3.4 says so in words, its module and example say otherwise."""
    bare = inner(attribute(oids.EXTENSION_REQUEST_TEMPLATE, asn1.sequence([oid(EKU)])))
    assert parse_csrattrs(template_of(V1, bare)) == CsrTemplate(fill_extensions=(EKU,))


def test_a_template_may_lack_its_attributes() -> None:
    assert parse_csrattrs(template_of(V1)) == CsrTemplate()


TO_FILL = {e: asn1.sequence([asn1.sequence([oid(e)])]) for e in (SAN, EKU)}
EXTENSION = asn1.sequence([oid(EKU), core.OctetString(b"\x30\x03\x06\x01\x2a").dump()])


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x01\x05",
        b"\x30\x00\x00",
        b"\x31\x00",
        flat(b"\x05\x00"),
        flat(b"\x30\x00"),
        flat(attribute("1.2.840.10045.2.1", b"\x05\x00")),
        flat(attribute("1.2.840.113549.1.1.1", oid(P256))),
        flat(attribute(oids.EXTENSION_REQUEST, b"\x04\x00")),
        flat(attribute(oids.EXTENSION_REQUEST, asn1.sequence([EXTENSION, EXTENSION]))),
        flat(attribute(oids.EXTENSION_REQUEST, asn1.sequence([
            asn1.sequence([oid(SAN), core.OctetString(b"\x02\x01\x05").dump()])]))),
        flat(attribute(oids.EXTENSION_REQUEST, asn1.sequence([
            asn1.sequence([oid("2.5.29.15"), core.OctetString(b"junk").dump()])]))),
        flat(*[oid(P256)] * (MAX_ELEMENTS + 1)),
        flat(attribute(oids.EXTENSION_REQUEST, asn1.sequence(
            [asn1.sequence([oid(f"1.2.{n}")]) for n in range(MAX_ELEMENTS + 1)]))),
        flat(attribute(oids.CSR_INFO_TEMPLATE)),
        flat(attribute(oids.CSR_INFO_TEMPLATE, asn1.sequence([V1]), asn1.sequence([V1]))),
        template_of(b"\x02\x01\x01"),
        template_of(),
        template_of(V1, inner(*[attribute(oids.EXTENSION_REQUEST_TEMPLATE, TO_FILL[e])
                                for e in TO_FILL])),
        template_of(V1, inner(attribute(oids.EXTENSION_REQUEST_TEMPLATE, TO_FILL[SAN]),
                              attribute(oids.EXTENSION_REQUEST, asn1.sequence([EXTENSION])))),
        template_of(V1, asn1.sequence([b"\x31" + _length(asn1.sequence([oid("2.5.4.3"), b"\x05\x00"]))])),
        template_of(V1, asn1.sequence([b"\x31" + _length(asn1.sequence([oid("2.5.4.3"), b"\x0c\x01\x07"]))])),
        template_of(V1, asn1.sequence([b"\x31" + _length(asn1.sequence([oid("2.5.4.3"), b"\x08\x01\x07"]))])),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(der: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_csrattrs(der)
    assert caught.value.code == "est.csrattrs"


def test_the_size_is_bounded() -> None:
    assert parse_csrattrs(flat(oid(P256)), limit=12).unknown == (P256,)
    with pytest.raises(RemoteProtocolError, match="limit 11"):
        parse_csrattrs(flat(oid(P256)), limit=11)


@given(st.binary(max_size=120))
def test_any_octets_are_wishes_or_a_named_error(der: bytes) -> None:
    try:
        parse_csrattrs(der)
    except HoldfastError as e:
        if e.code != "est.csrattrs":
            raise


def test_vectors_are_base64_of_something() -> None:
    found = sorted(VECTORS.glob("*.b64"))
    assert len(found) == 10
    assert all(base64.b64decode(f.read_bytes()) for f in found)
