"""Who signs a request: the certificate that is renewed, or one a key makes for itself (RFC 8894 §2.3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from holdfast.wire.algorithms import digest_for, spki
from holdfast.wire.model import Chain, SigningKey

BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
END: Final = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Fixed, so that a device without a clock can make it, and makes the same one again after a power cut."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate with its key; ``renews``: it is the one to be renewed. Its chain has the leaf first."""

    chain: Chain
    key: SigningKey = field(repr=False)
    renews: bool = False

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]


def self_signed(key: SigningKey, subject: x509.Name, transaction: bytes) -> Signer:
    """A certificate by *key* for itself. With an RSA key the same input gives the same octets."""
    digest = hashlib.sha256(transaction + spki(key)).digest()
    serial = int.from_bytes(digest[:16], "big") >> 1 | 1
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), serial, BEGIN, END)
    builder = builder.add_extension(usage, critical=True)
    return Signer((builder.sign(key, digest_for(key)),), key)
