"""A small PKI for tests: certificates with chosen validity, extensions and keys, each made in one call."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire import oids
from holdfast.wire.algorithms import digest_for
from holdfast.wire.model import Chain, ClockState, Moment, SigningKey

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BEGIN = NOW - timedelta(days=30)
END = NOW + timedelta(days=365)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
TRUSTED = Moment(NOW, NOW - timedelta(days=60), ClockState.TRUSTED)

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
CMC_RA = x509.ObjectIdentifier(oids.CMC_RA)

KeyKind = Literal["p256", "p384", "p521", "rsa1024", "rsa2048", "rsa3072"]
_USAGES = (
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


_CURVES: dict[str, ec.EllipticCurve] = {
    "p256": ec.SECP256R1(),
    "p384": ec.SECP384R1(),
    "p521": ec.SECP521R1(),
}


@dataclass(frozen=True)
class Identity:
    """A certificate with its key and the certificates above it, issuer first, root last."""

    certificate: x509.Certificate
    key: SigningKey
    above: Chain = ()

    @property
    def chain(self) -> Chain:
        return (self.certificate, *self.above)


def new_key(kind: KeyKind = "p256") -> SigningKey:
    """A fresh key, except RSA: those are slow to make, so one each kind is shared."""
    if kind.startswith("rsa"):
        return _rsa(int(kind[3:]))
    return ec.generate_private_key(_CURVES[kind])


@cache
def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def name(common: str, serial: str | None = None) -> x509.Name:
    rest = [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)] if serial else []
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common), *rest])


def key_usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in granted for usage in _USAGES})


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(each) for each in names]


def certificate(
    subject: x509.Name | str,
    key: SigningKey,
    issuer: Identity | None,
    *,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    not_before: datetime = BEGIN,
    not_after: datetime = END,
    digest: hashes.HashAlgorithm | None = None,
    serial: int | None = None,
) -> Identity:
    """One certificate with exactly these extensions (value, critical), self-signed without an *issuer*."""
    subject = name(subject) if isinstance(subject, str) else subject
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    made = builder.sign(signer, digest or digest_for(signer))  # type: ignore[arg-type]
    return Identity(made, key, issuer.chain if issuer else ())


def ca(
    subject: x509.Name | str = "Test CA",
    issuer: Identity | None = None,
    *,
    key: SigningKey | None = None,
    kind: KeyKind = "p256",
    path_length: int | None = None,
    eku: Iterable[x509.ObjectIdentifier] = (),
    more: Iterable[tuple[x509.ExtensionType, bool]] = (),
    not_before: datetime = BEGIN,
    not_after: datetime = END,
    digest: hashes.HashAlgorithm | None = None,
) -> Identity:
    """A CA certificate: basicConstraints, keyUsage and key identifiers as RFC 5280 wants them."""
    key = key or new_key(kind)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
        *_identifiers(key, issuer),
        *([(x509.ExtendedKeyUsage(eku), False)] if (eku := list(eku)) else []),
        *more,
    ]
    return certificate(
        subject, key, issuer, extensions=extensions, not_before=not_before, not_after=not_after, digest=digest
    )


def end_entity(
    subject: x509.Name | str,
    issuer: Identity,
    *,
    key: SigningKey | None = None,
    kind: KeyKind = "p256",
    san: Iterable[x509.GeneralName] = (),
    san_critical: bool = False,
    eku: Iterable[x509.ObjectIdentifier] = (),
    usage: x509.KeyUsage | None = key_usage("digital_signature"),  # noqa: B008
    more: Iterable[tuple[x509.ExtensionType, bool]] = (),
    not_before: datetime = BEGIN,
    not_after: datetime = END,
    digest: hashes.HashAlgorithm | None = None,
) -> Identity:
    """An end-entity certificate with digitalSignature and key identifiers."""
    key = key or new_key(kind)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        *([(usage, True)] if usage else []),
        *_identifiers(key, issuer),
        *([(x509.ExtendedKeyUsage(eku), False)] if (eku := list(eku)) else []),
        *([(x509.SubjectAlternativeName(san), san_critical)] if (san := list(san)) else []),
        *more,
    ]
    return certificate(
        subject, key, issuer, extensions=extensions, not_before=not_before, not_after=not_after, digest=digest
    )


def _identifiers(key: SigningKey, issuer: Identity | None) -> list[tuple[x509.ExtensionType, bool]]:
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    if issuer is None:
        return [(own, False)]
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return [(own, False), (above, False)]


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def key_pem(key: SigningKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def openssl(*arguments: str, data: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run the real openssl with *data* on its standard input."""
    done = subprocess.run(("openssl", *arguments), input=data, capture_output=True, check=False, timeout=30)
    if check and done.returncode:
        raise AssertionError(f"openssl {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done
