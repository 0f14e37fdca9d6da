"""EMSA-PSS encoding in software (RFC 8017 §9.1.1), for keys that offer the raw private operation only.

A TPM's own PSS uses a salt length that depends on the chip's maker; TLS 1.3 demands one of digest length.
"""

from __future__ import annotations

import hashlib

from holdfast.wire.errors import KeyStoreError


def encode_pss(digest: bytes, algorithm: str, salt: bytes, modulus_bits: int) -> bytes:
    """The padded block for *digest*, as long as the modulus. *algorithm* is a ``hashlib`` name.

    Raises KeyStoreError(``key.pss-too-long``) if digest and salt do not fit the modulus.
    """
    em_bits = modulus_bits - 1
    em_length = (em_bits + 7) // 8
    if em_length < len(digest) + len(salt) + 2:
        raise KeyStoreError(
            "key.pss-too-long", "digest and salt do not fit the modulus", clause="RFC 8017 §9.1.1"
        )
    seed = hashlib.new(algorithm, bytes(8) + digest + salt).digest()
    block = b"\x01" + salt
    block = block.rjust(em_length - len(seed) - 1, b"\0")
    mask = mgf1(seed, len(block), algorithm)
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0xFF >> (8 * em_length - em_bits)
    encoded = bytes(masked) + seed + b"\xbc"
    return encoded.rjust((modulus_bits + 7) // 8, b"\0")


def mgf1(seed: bytes, length: int, algorithm: str) -> bytes:
    """RFC 8017 §B.2.1."""
    mask = b""
    counter = 0
    while len(mask) < length:
        mask += hashlib.new(algorithm, seed + counter.to_bytes(4, "big")).digest()
        counter += 1
    return mask[:length]
