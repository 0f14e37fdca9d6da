"""A certification authority small enough to read: it signs what its caller decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from holdfast.wire.model import Chain, KeyAlgorithm, SigningKey

NEVER_EXPIRES = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # 802.1AR: an IDevID does not expire
BACKDATE = timedelta(minutes=5)  # room for clocks that run a little behind ours

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Extensions = Sequence[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True, slots=True)
class Validity:
    """Both ends of a certificate's life, aware UTC, whole seconds."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def starting(cls, now: datetime, life: timedelta | None) -> Validity:
        """From a little before *now* for *life*; None means without end (9999)."""
        start = now.replace(microsecond=0)
        end = NEVER_EXPIRES if life is None or life > NEVER_EXPIRES - start else start + life
        return cls(start - BACKDATE, end)


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with its issuers (leaf first) and the private key that goes with it."""

    chain: Chain
    key: SigningKey = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]


class Authority:
    """A CA: a certificate, its key and the way up to its root."""

    def __init__(self, credential: Credential, serials: Callable[[int], bytes]) -> None:
        self.credential = credential
        self._serials = serials

    @property
    def certificate(self) -> x509.Certificate:
        return self.credential.certificate

    @property
    def public_key(self) -> PublicKey:
        return self.credential.key.public_key()

    @property
    def chain(self) -> Chain:
        """This CA's certificate first, its root last."""
        return self.credential.chain

    @classmethod
    def root(
        cls, name: x509.Name, validity: Validity, serials: Callable[[int], bytes], algorithm: KeyAlgorithm
    ) -> Authority:
        key = new_key(algorithm)
        builder = _builder(name, name, key.public_key(), validity, serials)
        builder = _with(builder, CA_EXTENSIONS)
        return cls(Credential((builder.sign(key, hashes.SHA256()),), key), serials)

    def subordinate(self, name: x509.Name, validity: Validity, algorithm: KeyAlgorithm) -> Authority:
        key = new_key(algorithm)
        certificate = self.sign(name, key.public_key(), validity, CA_EXTENSIONS)
        return Authority(Credential((certificate, *self.chain), key), self._serials)

    def sign(
        self, subject: x509.Name, public_key: PublicKey, validity: Validity, extensions: Extensions
    ) -> x509.Certificate:
        """Issue for *subject*; key identifiers are added, everything else is the caller's choice."""
        issuer = self.certificate.subject
        builder = _with(_builder(subject, issuer, public_key, validity, self._serials), extensions)
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        return builder.add_extension(authority, critical=False).sign(self.credential.key, hashes.SHA256())

    def credential_for(
        self, subject: x509.Name, validity: Validity, extensions: Extensions, algorithm: KeyAlgorithm
    ) -> Credential:
        """Issue to a new software key."""
        key = new_key(algorithm)
        return Credential((self.sign(subject, key.public_key(), validity, extensions), *self.chain), key)


def new_key(algorithm: KeyAlgorithm) -> SigningKey:
    if algorithm is KeyAlgorithm.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm is KeyAlgorithm.P384:
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, 3072 if algorithm is KeyAlgorithm.RSA3072 else 2048)


def name(common_name: str, organization: str | None = None, serial_number: str | None = None) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name)]
    parts.append((NameOID.SERIAL_NUMBER, serial_number))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value is not None])


def key_usage(*allowed: str) -> x509.KeyUsage:
    """A KeyUsage with exactly the *allowed* bits, spelled as cryptography's parameters."""
    return x509.KeyUsage(**{bit: bit in allowed for bit in _USAGE_BITS})


_USAGE_BITS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

CA_EXTENSIONS: Extensions = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (key_usage("key_cert_sign", "crl_sign", "digital_signature"), True),
)


def end_entity(*usages: x509.ObjectIdentifier, san: Sequence[x509.GeneralName] = ()) -> Extensions:
    """The extensions of a certificate that signs and authenticates, with these extended usages."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage("digital_signature"), True),
    ]
    if usages:
        extensions.append((x509.ExtendedKeyUsage(usages), False))
    if san:
        extensions.append((x509.SubjectAlternativeName(san), False))
    return extensions


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: PublicKey,
    validity: Validity,
    serials: Callable[[int], bytes],
) -> x509.CertificateBuilder:
    serial = int.from_bytes(serials(16), "big") | 1 << 120  # positive, never zero
    builder = x509.CertificateBuilder(issuer, subject, public_key, serial & (1 << 127) - 1)
    builder = builder.not_valid_before(validity.not_before).not_valid_after(validity.not_after)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _with(builder: x509.CertificateBuilder, extensions: Extensions) -> x509.CertificateBuilder:
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder
