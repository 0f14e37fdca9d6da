"""PWRI-KEK (RFC 3211 §2.3): a content key wrapped under a key that a password gives.

The wrapped block says its length and repeats three octets inverted, is filled up with random octets and
encrypted twice in one chain, so that every octet depends on every other.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.model import RandomBytes

ITERATIONS: Final = 100_000
"""What we spend on a password of our own messages."""

MOST_ITERATIONS: Final = 1_000_000
"""What we let a peer make us spend: about a second on a small gateway."""

_PRFS: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha1": hashes.SHA1,  # the default of PKCS#5; its HMAC is not broken
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
PRFS: Final = frozenset(_PRFS)


def derive(password: bytes, salt: bytes, iterations: int, prf: str, size: int) -> bytes:
    """PBKDF2 (RFC 8018 §5.2). *prf* is one of PRFS; bounds are the caller's."""
    return PBKDF2HMAC(_PRFS[prf](), size, salt, iterations).derive(password)


def wrap(cipher: ContentCipher, kek: bytes, vector: bytes, key: bytes, random: RandomBytes) -> bytes:
    """Wrap the content key *key* (3 to 255 octets)."""
    block = bytes([len(key)]) + bytes(octet ^ 0xFF for octet in key[:3]) + key
    whole = max(2, -(-len(block) // cipher.block)) * cipher.block
    block += random(whole - len(block))
    chain = cipher.encryptor(kek, vector)
    return chain.update(chain.update(block))  # the second pass starts from the end of the first


def unwrap(cipher: ContentCipher, kek: bytes, vector: bytes, wrapped: bytes) -> bytes:
    """The content key in *wrapped* (at least two whole blocks); empty if the check octets do not fit."""
    size = cipher.block
    last = cipher.decryptor(kek, wrapped[-2 * size : -size]).update(wrapped[-size:])
    inner = cipher.decryptor(kek, last).update(wrapped[:-size]) + last
    block = cipher.decryptor(kek, vector).update(inner)
    count, check, key = block[0], block[1:4], block[4:]
    wrong = int(not 3 <= count <= len(key))
    for octet, inverted in zip(key, check, strict=False):
        wrong |= octet ^ inverted ^ 0xFF
    return b"" if wrong else key[:count]
