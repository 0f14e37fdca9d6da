"""The signature algorithms that Holdfast makes and accepts, for every format that carries signatures.

Made: ECDSA and RSASSA-PKCS1-v1_5 (never PSS: some TPMs salt it in a way that TLS 1.3 peers refuse), with
SHA-384 for P-384 and SHA-256 otherwise. Accepted: RSA of 2048 to 8192 bits, P-256, P-384, P-521, with SHA-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import SigningKey

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # cryptography before 47
    ML_DSA: Mapping[str, type[Any]] = MappingProxyType({})
else:
    ML_DSA = MappingProxyType(  # RFC 9881 §2
        {
            "2.16.840.1.101.3.4.3.17": mldsa.MLDSA44PublicKey,
            "2.16.840.1.101.3.4.3.18": mldsa.MLDSA65PublicKey,
            "2.16.840.1.101.3.4.3.19": mldsa.MLDSA87PublicKey,
        }
    )

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

DIGESTS: Final[dict[str, type[Digest]]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS: Final = range(2048, 8193)  # the upper end bounds the work that a hostile key can cause


def digest_for(key: SigningKey | PublicKey, wanted: str | None = None) -> Digest:
    """The digest to sign with: *wanted* (``sha256``, ...) if given, else the one that suits the key."""
    if wanted is not None:
        if wanted not in DIGESTS:
            raise LocalProtocolError("key.digest", f"no digest is called {wanted!r}")
        return DIGESTS[wanted]()
    on_curve = isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey)
    if on_curve and key.key_size == 384:
        return hashes.SHA384()
    return hashes.SHA256()


def sign_data(key: SigningKey, data: bytes, digest: Digest) -> bytes:
    """Sign *data*; ECDSA values are DER. The key may live in hardware: its own errors pass through."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(digest))
    return key.sign(data, padding.PKCS1v15(), digest)


def verify(
    key: PublicKey,
    signature: bytes,
    data: bytes,
    digest: hashes.HashAlgorithm,
    *,
    pss_salt: int | None = None,
) -> None:
    """Check one signature. *pss_salt* (octets) selects RSASSA-PSS with MGF1 over the same digest.

    Raises :class:`TrustError` ``signature.invalid``.
    """
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(digest))
        elif pss_salt is None:
            key.verify(signature, data, padding.PKCS1v15(), digest)
        else:
            key.verify(signature, data, padding.PSS(padding.MGF1(digest), pss_salt), digest)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise TrustError("signature.invalid", "the signature does not fit the key and the data") from error


def accepted_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> PublicKey:
    """The public key of *holder* if it is of an accepted kind and strength.

    Raises :class:`TrustError` (``key.weak``, ``key.unsupported``) and
    :class:`RemoteProtocolError` (``key.syntax``).
    """
    try:
        key = holder.public_key()
    except UnsupportedAlgorithm as error:
        raise TrustError("key.unsupported", str(error)) from error
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("key.syntax", f"unreadable public key: {error}") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS:
            raise TrustError("key.weak", f"RSA key of {key.key_size} bits")
        return key
    raise TrustError("key.unsupported", "neither RSA nor an EC key on P-256, P-384 or P-521")


def has_ml_dsa_key(holder: x509.Certificate) -> bool:
    """Whether *holder* has an ML-DSA key, by which signatures of other parties can be checked here."""
    try:
        return isinstance(holder.public_key(), tuple(ML_DSA.values()))
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False


def accepted_signature_digest(signed: x509.Certificate | x509.CertificateSigningRequest) -> None:
    """Refuse a signature made with anything but SHA-2 or ML-DSA (``signature.weak``)."""
    if signed.signature_algorithm_oid.dotted_string in ML_DSA:
        return
    try:
        digest = signed.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise TrustError("signature.unsupported", str(error)) from error
    if not isinstance(digest, Digest):
        raise TrustError("signature.weak", f"signed with {digest.name if digest else 'no digest'}")


def spki(holder: SigningKey | PublicKey | x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """DER SubjectPublicKeyInfo of a key, a certificate or a CSR.

    Raises :class:`RemoteProtocolError` ``key.syntax`` if a certificate or CSR carries no readable key.
    """
    try:
        if isinstance(holder, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return holder.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise RemoteProtocolError("key.syntax", f"unreadable public key: {error}") from error
