"""What certConf says of a certificate (RFC 9810 §5.3.18)."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from holdfast.wire import algorithm_oids
from holdfast.wire.algorithms import Digest
from holdfast.wire.identified import Algorithm


def certificate_hash(certificate: x509.Certificate) -> tuple[Digest, Algorithm | None]:
    """The hash that certConf carries: that of the certificate's signature (RFC 9810 §5.3.18).

    Where the signature has none of its own (EdDSA, ML-DSA), or one that is not made here, SHA-256 is named in
    hashAlg, which needs pvno 3.
    """
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    if isinstance(digest, Digest):
        return digest, None
    return hashes.SHA256(), Algorithm(algorithm_oids.SHA256)
