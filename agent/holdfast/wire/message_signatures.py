"""Signatures whose algorithm an identifier names (RFC 9481 §3), with ML-DSA where it can be had (RFC 9881).

Made: ECDSA and RSASSA-PKCS1-v1_5, as everywhere in Holdfast. Accepted besides: ML-DSA, so that a CA may move
on before devices can.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire import algorithm_oids as oids
from holdfast.wire import der
from holdfast.wire.algorithms import ML_DSA, Digest, accepted_key, digest_for, verify
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import TrustError
from holdfast.wire.identified import Algorithm
from holdfast.wire.model import SigningKey

_RSA: Final[Mapping[str, type[Digest]]] = MappingProxyType(
    {oids.RSA_SHA256: hashes.SHA256, oids.RSA_SHA384: hashes.SHA384, oids.RSA_SHA512: hashes.SHA512}
)
_ECDSA: Final[Mapping[str, type[Digest]]] = MappingProxyType(
    {oids.ECDSA_SHA256: hashes.SHA256, oids.ECDSA_SHA384: hashes.SHA384, oids.ECDSA_SHA512: hashes.SHA512}
)
HASHES: Final[Mapping[str, type[Digest]]] = MappingProxyType(
    {oids.SHA256: hashes.SHA256, oids.SHA384: hashes.SHA384, oids.SHA512: hashes.SHA512}
)


def signature_algorithm(key: SigningKey) -> tuple[Algorithm, Digest]:
    """How *key* signs."""
    digest = digest_for(key)
    table = _ECDSA if isinstance(key, ec.EllipticCurvePrivateKey) else _RSA
    oid = next(oid for oid, each in table.items() if isinstance(digest, each))
    return Algorithm(oid, der.null() if table is _RSA else b""), digest


def is_signature(algorithm: Algorithm) -> bool:
    """Whether *algorithm* is a signature that can be checked here."""
    return algorithm.oid in _RSA or algorithm.oid in _ECDSA or algorithm.oid in ML_DSA


def verify_by(
    holder: x509.Certificate | x509.CertificateSigningRequest,
    algorithm: Algorithm,
    signature: bytes,
    data: bytes,
) -> None:
    """Check a signature by the key of *holder*.

    Raises TrustError ``signature.invalid``, ``signature.unsupported`` and the ``key.`` codes of
    :func:`holdfast.wire.algorithms.accepted_key`; RemoteProtocolError ``key.syntax``.
    """
    if algorithm.oid in ML_DSA:
        _verify_ml_dsa(holder, algorithm, signature, data)
        return
    table = _ECDSA if algorithm.oid in _ECDSA else _RSA
    allowed = ("", der.null().hex()) if table is _RSA else ("",)
    if algorithm.oid not in table or algorithm.parameters.hex() not in allowed:
        raise TrustError("signature.unsupported", f"algorithm {algorithm.oid}", clause="RFC 9481 §3")
    key = accepted_key(holder)
    if isinstance(key, ec.EllipticCurvePublicKey) is not (table is _ECDSA):
        raise TrustError("signature.invalid", "the algorithm does not fit the key")
    verify(key, signature, data, table[algorithm.oid]())


def _verify_ml_dsa(
    holder: x509.Certificate | x509.CertificateSigningRequest,
    algorithm: Algorithm,
    signature: bytes,
    data: bytes,
) -> None:
    try:
        key = holder.public_key()
        if not isinstance(key, ML_DSA[algorithm.oid]):
            raise TrustError("signature.invalid", "the algorithm does not fit the key")
        key.verify(signature, data)
    except (InvalidSignature, *LIBRARY_ERRORS) as error:
        raise TrustError("signature.invalid", "the signature does not fit the key and the data") from error


def hash_of(data: bytes, digest: Digest) -> bytes:
    """The digest of *data*."""
    hasher = hashes.Hash(digest)
    hasher.update(data)
    return hasher.finalize()
