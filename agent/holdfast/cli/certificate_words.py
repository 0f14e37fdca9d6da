"""A certificate in words: what a person asks of it, in the order of asking."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from holdfast.cli.words import listed, span, timestamp
from holdfast.wire import oids

Line = tuple[str, str]

_PURPOSES: Final = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS client",
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS server",
    ExtendedKeyUsageOID.CODE_SIGNING: "code signing",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "e-mail",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamps",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP answers",
    x509.ObjectIdentifier(oids.CMC_RA): "registration authority (CMC RA)",
}
_USAGES: Final = {
    "digital_signature": "signatures",
    "content_commitment": "commitments",
    "key_encipherment": "key encryption",
    "data_encipherment": "encryption",
    "key_agreement": "key agreement",
    "key_cert_sign": "issuing certificates",
    "crl_sign": "issuing revocation lists",
}


def describe(certificate: x509.Certificate, now: datetime) -> Iterator[Line]:
    """Labels and values. An extension that cannot be read is told as such, never an error."""
    yield "subject", name_words(certificate.subject) or "(empty)"
    yield "issuer", name_words(certificate.issuer) or "(empty)"
    yield "serial", f"{certificate.serial_number:x}"
    yield "valid", f"from {timestamp(certificate.not_valid_before_utc)}"
    yield "", f"to   {timestamp(certificate.not_valid_after_utc)} ({_left(certificate, now)})"
    yield "key", _key(certificate)
    yield "signed", _signature(certificate)
    yield from _extensions(certificate)
    yield "sha256", certificate.fingerprint(hashes.SHA256()).hex()


def values(certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    """The same for JSON: one text, or a list where a label comes more than once."""
    told: dict[str, Any] = {}
    label = ""
    for name, value in describe(certificate, now):
        label = name or label
        before = told.get(label)
        told[label] = (
            value if before is None else [*(before if isinstance(before, list) else [before]), value]
        )
    told["valid"] = {
        "not_before": timestamp(certificate.not_valid_before_utc),
        "not_after": timestamp(certificate.not_valid_after_utc),
    }
    return told


def name_words(name: x509.Name) -> str:
    """A distinguished name by RFC 4514, with words for the attributes that devices are known by."""
    return name.rfc4514_string({NameOID.SERIAL_NUMBER: "serialNumber", NameOID.EMAIL_ADDRESS: "emailAddress"})


def _left(certificate: x509.Certificate, now: datetime) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        return f"ended {span(now - end)} ago"
    if now < begin:
        return f"begins in {span(begin - now)}"
    if end.year == 9999:
        return "no end"
    share = (end - now) / (end - begin) if end > begin else 0.0
    return f"{span(end - now)} left, {share:.0%} of its life"


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return f"of an unknown kind ({certificate.public_key_algorithm_oid.dotted_string})"
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC, {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA, {key.key_size} bits"
    return type(key).__name__.lstrip("_").removesuffix("PublicKey")


def _signature(certificate: x509.Certificate) -> str:
    try:
        digest = certificate.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return f"by {certificate.signature_algorithm_oid.dotted_string}"
    return f"over {digest.name}" if digest else f"by {certificate.signature_algorithm_oid.dotted_string}"


def _extensions(certificate: x509.Certificate) -> Iterator[Line]:
    try:
        extensions = tuple(certificate.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        yield "extensions", f"cannot be read: {error}"
        return
    for extension in extensions:
        yield from _extension(extension.value)


def _extension(value: x509.ExtensionType) -> Iterator[Line]:
    match value:
        case x509.BasicConstraints(ca=True, path_length=length):
            yield "CA", "yes" if length is None else f"yes, with at most {length} below it"
        case x509.SubjectAlternativeName() | x509.IssuerAlternativeName():
            yield "names", listed([_name(n) for n in value]) or "(none)"
        case x509.KeyUsage():
            yield (
                "usage",
                listed([words for attribute, words in _USAGES.items() if getattr(value, attribute)]),
            )
        case x509.ExtendedKeyUsage():
            yield "purpose", listed([_PURPOSES.get(p, p.dotted_string) for p in value])
        case x509.AuthorityInformationAccess():
            for access in value:
                ocsp = access.access_method == AuthorityInformationAccessOID.OCSP
                yield "OCSP" if ocsp else "issuer at", _name(access.access_location)
        case x509.CRLDistributionPoints():
            for point in value:
                for name in point.full_name or ():
                    yield "CRL", _name(name)


def _name(name: x509.GeneralName) -> str:
    match name:
        case (
            x509.DNSName(value=text)
            | x509.UniformResourceIdentifier(value=text)
            | x509.RFC822Name(value=text)
        ):
            return text
        case x509.IPAddress(value=address):
            return str(address)
        case x509.DirectoryName(value=subject):
            return name_words(subject)
        case x509.OtherName(type_id=kind):
            return f"other name {kind.dotted_string}"
    return "a name of an unknown kind"
