"""The other side of protection by a KEM key: a secret for the holder of a certificate.

Newer versions of ``cryptography`` have ML-KEM, if the OpenSSL below has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from holdfast.wire.cmp.kem import KemCiphertext
from holdfast.wire.errors import LocalProtocolError

try:
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:  # an older cryptography
    ML_KEM: Mapping[str, type[Any]] = MappingProxyType({})
else:
    ML_KEM = MappingProxyType(  # RFC 9935 §3
        {
            "2.16.840.1.101.3.4.4.2": mlkem.MLKEM768PublicKey,
            "2.16.840.1.101.3.4.4.3": mlkem.MLKEM1024PublicKey,
        }
    )


def encapsulate(certificate: x509.Certificate) -> tuple[bytes, KemCiphertext]:
    """A fresh secret, and the ciphertext that brings it to the holder of *certificate*.

    Raises LocalProtocolError ``cmp.kem-unavailable`` where that cannot be computed here.
    """
    kem = certificate.public_key_algorithm_oid.dotted_string
    try:
        if kem not in ML_KEM:
            raise UnsupportedAlgorithm(f"KEM {kem}")
        key: Any = certificate.public_key()
        shared, ciphertext = key.encapsulate()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise LocalProtocolError("cmp.kem-unavailable", f"no encapsulation here: {error}") from error
    return shared, KemCiphertext(kem, ciphertext)
