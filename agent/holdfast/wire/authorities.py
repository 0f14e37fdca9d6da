"""CA certificates as a server gives them (RFC 7030 §4.1.3, RFC 9483 §4.3.1, RFC 8894 §4.2).

An answer holds the current root, the chain to the issuing CA and, around a change of root, the
certificates that link old and new. Only roots become anchors; all others are a help to build paths.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import Chain


@dataclass(frozen=True, slots=True)
class Authorities:
    """CA certificates by their part: ``roots`` newest (latest notAfter) first, ``intermediates`` as sent."""

    roots: Chain
    intermediates: Chain


def is_ca(certificate: x509.Certificate) -> bool:
    """What BasicConstraints says. Raises RemoteProtocolError ``certificate.syntax`` if it is unreadable."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise RemoteProtocolError("certificate.syntax", f"unreadable extensions: {e}"[:300]) from e


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether the certificate is signed by its own key, with whatever digest.

    That signature proves nothing, it only tells a root from a certificate that links two roots of one
    name. So old roots that are signed with SHA-1, which the library's own check refuses, count too.
    """
    try:
        if certificate.issuer != certificate.subject:
            return False
        key, signature = certificate.public_key(), certificate.signature
        digest, scheme = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
        signed = certificate.tbs_certificate_bytes
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
            key.verify(signature, signed, scheme)
        elif (
            isinstance(key, rsa.RSAPublicKey)
            and isinstance(scheme, padding.PKCS1v15 | padding.PSS)
            and digest
        ):
            key.verify(signature, signed, scheme, digest)
        else:
            return False
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def split_authorities(certificates: Chain) -> Authorities:
    """Tell roots from intermediates. Certificates that are no CA are left out, duplicates once."""
    authorities = [c for c in dict.fromkeys(certificates) if is_ca(c)]
    roots = [c for c in authorities if is_self_signed(c)]
    roots.sort(key=lambda c: c.not_valid_after_utc, reverse=True)
    return Authorities(tuple(roots), tuple(c for c in authorities if c not in roots))


def accept_authorities(certificates: Chain, *, limit: int, prefix: str, clause: str) -> Chain:
    """The CA certificates of an answer: roots first, newest first, then the intermediates.

    They are as trustworthy as what brought them. Raises RemoteProtocolError *prefix*
    ``.too-many-certificates`` (more than *limit*) or ``.no-root`` about *clause*, and ``certificate.syntax``.
    """
    if len(certificates) > limit:
        detail = f"{len(certificates)} CA certificates, limit {limit}"
        raise RemoteProtocolError(f"{prefix}.too-many-certificates", detail, clause=clause)
    found = split_authorities(certificates)
    if not found.roots:
        detail = f"no self-signed CA certificate among {len(certificates)}"
        raise RemoteProtocolError(f"{prefix}.no-root", detail, clause=clause)
    return found.roots + found.intermediates
