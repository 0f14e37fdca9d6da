"""Certificate requests: what we build, what openssl thinks of it, and what we refuse to read."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

import wire_pki as pki
from effort import at_least
from holdfast.wire import csr, oids
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import CsrTemplate, SigningKey

SUBJECT = pki.name("gateway", "SN-1")
SAN = ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string
KEY = pki.new_key()


class HardwareEc(ec.EllipticCurvePrivateKey):
    """What a TPM key looks like: the library's ABC, with a signature made in Python and no export."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.signatures = 0

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self.signatures += 1
        return self._key.sign(data, signature_algorithm)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def exchange(self, *_: Any) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, *_: Any) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> HardwareEc:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> HardwareEc:
        return self


class HardwareRsa(rsa.RSAPrivateKey):
    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        assert isinstance(padding, _PKCS1)
        return self._key.sign(data, padding, algorithm)

    def decrypt(self, ciphertext: Any, padding: Any) -> bytes:
        raise NotImplementedError

    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, *_: Any) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> HardwareRsa:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> HardwareRsa:
        return self


_PKCS1 = padding.PKCS1v15


def openssl_text(der: bytes) -> str:
    done = pki.openssl("req", "-inform", "DER", "-verify", "-noout", "-text", "-nameopt", "oneline", data=der)
    assert b"verify OK" in done.stdout + done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("kind", "digest"),
    [("p256", "SHA256"), ("p384", "SHA384"), ("rsa2048", "sha256With"), ("rsa3072", "sha256With")],
)
def test_openssl_verifies_every_kind_of_key(kind: pki.KeyKind, digest: str) -> None:
    made = csr.build(pki.new_key(kind), SUBJECT)
    assert digest in openssl_text(made)
    assert csr.parse(made).subject == SUBJECT


def test_hardware_keys_sign_once() -> None:
    soft = pki.new_key()
    assert isinstance(soft, ec.EllipticCurvePrivateKey)
    hard = HardwareEc(soft)
    assert "gateway" in openssl_text(csr.build(hard, SUBJECT))
    assert hard.signatures == 1
    soft_rsa = pki.new_key("rsa2048")
    assert isinstance(soft_rsa, rsa.RSAPrivateKey)
    made = csr.parse(csr.build(HardwareRsa(soft_rsa), SUBJECT))
    assert made.signature_algorithm_oid.dotted_string == "1.2.840.113549.1.1.11"


def test_public_bytes_agree_between_key_request_and_certificate() -> None:
    request = csr.parse(csr.build(KEY, SUBJECT))
    cert = pki.certificate("x", KEY, None).certificate
    assert csr.public_bytes(KEY) == csr.public_bytes(request) == csr.public_bytes(cert)
    assert csr.public_bytes(KEY) != csr.public_bytes(pki.new_key())


# --- the template ---


def test_digest_of_the_template() -> None:
    made = csr.parse(csr.build(KEY, SUBJECT, template=CsrTemplate(digest="sha384")))
    assert isinstance(made.signature_hash_algorithm, hashes.SHA384)
    with pytest.raises(LocalProtocolError, match=r"key\.digest"):
        csr.build(KEY, SUBJECT, template=CsrTemplate(digest="md5"))


def test_a_prescribed_subject_is_filled_from_ours() -> None:
    wanted = (("2.5.4.10", "Plant 7"), ("2.5.4.5", None), ("2.5.4.3", None))
    made = csr.parse(csr.build(KEY, SUBJECT, template=CsrTemplate(subject=wanted)))
    assert [(each.oid.dotted_string, each.value) for each in made.subject] == [
        ("2.5.4.10", "Plant 7"),
        ("2.5.4.5", "SN-1"),
        ("2.5.4.3", "gateway"),
    ]


def test_a_prescribed_value_that_we_do_not_have() -> None:
    with pytest.raises(LocalProtocolError, match=r"csr\.subject"):
        csr.build(KEY, SUBJECT, template=CsrTemplate(subject=(("2.5.4.11", None),)))
    with pytest.raises(LocalProtocolError, match=r"csr\.subject"):
        csr.build(KEY, SUBJECT, template=CsrTemplate(subject=(("2.5.4.6", "too long for a country"),)))


def test_serial_number_is_always_printable_string() -> None:
    utf8 = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "SN-1", _ASN1Type.UTF8String)])
    made = csr.build(KEY, utf8)
    assert bytes.fromhex("0603550405") + b"\x13\x04SN-1" in made
    with pytest.raises(LocalProtocolError, match=r"csr\.subject"):
        csr.build(KEY, pki.name("x", "№1"))


def test_a_country_read_from_elsewhere_that_is_none() -> None:
    with pytest.warns(UserWarning, match="length"):
        long = x509.NameAttribute(NameOID.COUNTRY_NAME, "Utopia", _ASN1Type.UTF8String, _validate=False)
    with pytest.raises(LocalProtocolError, match=r"csr\.subject"):
        csr.build(KEY, x509.Name([long]))


def test_extensions_of_the_template_are_verbatim() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x01x")
    fixed = (
        x509.Extension(odd.oid, True, odd),
        x509.Extension(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME, True, x509.SubjectAlternativeName(pki.dns("a.b"))
        ),
    )
    made = csr.parse(csr.build(KEY, SUBJECT, template=CsrTemplate(extensions=fixed), san=pki.dns("ours.b")))
    assert tuple(made.extensions) == fixed


def test_san_is_filled_in() -> None:
    template = CsrTemplate(fill_extensions=(SAN,))
    made = csr.parse(csr.build(KEY, SUBJECT, template=template, san=pki.dns("a.b", "c.d")))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["a.b", "c.d"]
    assert not names.critical
    with pytest.raises(LocalProtocolError, match=r"csr\.san"):
        csr.build(KEY, SUBJECT, template=template)


def test_fixed_and_filled_names_join() -> None:
    fixed = x509.Extension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, False, x509.SubjectAlternativeName(pki.dns("a.b"))
    )
    template = CsrTemplate(extensions=(fixed,), fill_extensions=(SAN,))
    made = csr.parse(csr.build(KEY, SUBJECT, template=template, san=pki.dns("a.b", "c.d")))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["a.b", "c.d"]


def test_san_is_critical_without_a_subject() -> None:
    made = csr.parse(csr.build(KEY, x509.Name([]), san=pki.dns("a.b")))
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_other_extensions_to_fill_in() -> None:
    template = CsrTemplate(fill_extensions=("2.5.29.15", "2.5.29.37", "2.5.29.14", "1.2.3.4"))
    text = openssl_text(csr.build(KEY, SUBJECT, template=template))
    assert "Digital Signature" in text
    assert "TLS Web Client Authentication" in text
    assert "Subject Key Identifier" in text
    assert "1.2.3.4" not in text


def test_one_extension_twice() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    twice = (x509.Extension(odd.oid, False, odd),) * 2
    with pytest.raises(LocalProtocolError, match=r"csr\.extension"):
        csr.build(KEY, SUBJECT, template=CsrTemplate(extensions=twice))


# --- challengePassword ---


@pytest.mark.parametrize(("challenge", "tag"), [("a+/0=", 0x13), ("bin*dung", 0x0C), ("grün", 0x0C)])
def test_challenge_password(challenge: str, tag: int) -> None:
    made = csr.build(KEY, SUBJECT, challenge=challenge)
    assert bytes([tag, len(challenge.encode())]) + challenge.encode() in made
    assert csr.challenge_password(csr.parse(made)) == challenge
    assert "challengePassword" in openssl_text(made)


def test_no_challenge_password() -> None:
    assert csr.challenge_password(csr.parse(csr.build(KEY, SUBJECT))) is None


@pytest.mark.parametrize("challenge", ["", "x" * 256])
def test_challenge_password_bounds(challenge: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"csr\.challenge"):
        csr.build(KEY, SUBJECT, challenge=challenge)


@pytest.mark.parametrize(
    ("value", "tag"),
    [(b"x" * 256, _ASN1Type.UTF8String), (b"", _ASN1Type.UTF8String), (b"x", _ASN1Type.OctetString)],
)
def test_challenge_password_of_others_is_checked(value: bytes, tag: _ASN1Type) -> None:
    request = foreign().add_attribute(x509.ObjectIdentifier(oids.CHALLENGE_PASSWORD), value, _tag=tag)
    with pytest.raises(RemoteProtocolError, match=r"csr\.challenge"):
        csr.challenge_password(csr.parse(signed(request)))


# --- reading ---


def foreign() -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(SUBJECT)


def signed(builder: x509.CertificateSigningRequestBuilder, key: SigningKey = KEY) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_request_signed_by_another_key() -> None:
    der = bytearray(csr.build(KEY, SUBJECT))
    der[-1] ^= 1
    with pytest.raises(TrustError, match=r"csr\.pop"):
        csr.parse(bytes(der))


def test_openssl_requests_are_read() -> None:
    made = pki.openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes",
        "-keyout", "/dev/null", "-subj", "/CN=theirs", "-addext", "subjectAltName=DNS:a.b", "-outform", "DER",
    )  # fmt: skip
    assert csr.parse(made.stdout).subject == pki.name("theirs")


def test_bounds_and_trailing_data() -> None:
    der = csr.build(KEY, SUBJECT)
    for bad in (b"", der + b"\0", der[:-1], b"-----BEGIN", b"\x30\x80" + der[2:] + b"\0\0"):
        with pytest.raises(RemoteProtocolError, match=r"csr\.syntax"):
            csr.parse(bad)
    with pytest.raises(RemoteProtocolError, match=r"csr\.too-large"):
        csr.parse(der, limit=len(der) - 1)
    assert csr.parse(der, limit=len(der))


def test_weak_requests() -> None:
    with pytest.raises(TrustError, match=r"key\.weak"):
        csr.parse(signed(foreign(), pki.new_key("rsa1024")))
    made = pki.openssl(
        "req", "-new", "-sha1", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null",
        "-subj", "/CN=x", "-outform", "DER",
    )  # fmt: skip
    with pytest.raises(TrustError, match=r"signature\.weak"):
        csr.parse(made.stdout)
    made = pki.openssl(
        "req", "-new", "-newkey", "ed25519", "-nodes", "-keyout", "/dev/null",
        "-subj", "/CN=x", "-outform", "DER",
    )  # fmt: skip
    with pytest.raises(TrustError, match=r"key\.unsupported"):
        csr.parse(made.stdout)


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16
)  # 64 octets at most, the limit of a CN


@given(common=TEXT, challenge=TEXT, names=st.lists(st.from_regex(r"[a-z]{1,9}\.example", fullmatch=True)))
def test_round_trip(common: str, challenge: str, names: list[str]) -> None:
    made = csr.parse(csr.build(KEY, pki.name(common), san=pki.dns(*names), challenge=challenge))
    assert made.subject == pki.name(common)
    assert csr.challenge_password(made) == challenge
    found = [each.value for each in made.extensions if isinstance(each.value, x509.SubjectAlternativeName)]
    expected = list(dict.fromkeys(names))
    assert [each.get_values_for_type(x509.DNSName) for each in found] == ([expected] if names else [])


@settings(max_examples=at_least(200))
@given(st.binary(max_size=300))
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(HoldfastError):
        csr.parse(garbage)
