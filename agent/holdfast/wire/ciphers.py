"""Content encryption for CMS: AES in CBC mode, and triple DES for servers that know nothing better.

Single DES, RC2 and RC4 have no name here: nothing in Holdfast can be told to use them.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC


class ContentCipher(Enum):
    """A block cipher in CBC mode by the name that asn1crypto gives its OID."""

    AES128 = "aes128_cbc"
    AES256 = "aes256_cbc"
    DES3 = "tripledes_3key"

    @property
    def key_size(self) -> int:
        """Octets of a key."""
        return _SIZES[self][0]

    @property
    def block(self) -> int:
        """Octets of a block, and of the initialisation vector."""
        return _SIZES[self][1]

    def encryptor(self, key: bytes, vector: bytes) -> CipherContext:
        return self._cipher(key, vector).encryptor()

    def decryptor(self, key: bytes, vector: bytes) -> CipherContext:
        return self._cipher(key, vector).decryptor()

    def _cipher(self, key: bytes, vector: bytes) -> Cipher[CBC]:
        return Cipher(TripleDES(key) if self is ContentCipher.DES3 else AES(key), CBC(vector))


_SIZES: Final = {ContentCipher.AES128: (16, 16), ContentCipher.AES256: (32, 16), ContentCipher.DES3: (24, 8)}


def pad(data: bytes, block: int) -> bytes:
    """RFC 5652 §6.3: one to *block* octets, each the number of them."""
    count = block - len(data) % block
    return data + bytes([count]) * count


def unpad(data: bytes, block: int) -> bytes | None:
    """*data* without its padding, None if the padding is wrong. Looks at every candidate octet alike."""
    if not data or len(data) % block:
        return None
    count = data[-1]
    wrong = int(not 1 <= count <= block)
    for at in range(1, block + 1):
        wrong |= (data[-at] ^ count) * (at <= count)
    return None if wrong else data[: len(data) - count]


def encrypt(cipher: ContentCipher, key: bytes, vector: bytes, data: bytes) -> bytes:
    """Pad and encrypt."""
    context = cipher.encryptor(key, vector)
    return context.update(pad(data, cipher.block)) + context.finalize()


def decrypt(cipher: ContentCipher, key: bytes, vector: bytes, data: bytes) -> bytes | None:
    """Decrypt and take the padding off; None if it is wrong. *data* must be whole blocks."""
    context = cipher.decryptor(key, vector)
    return unpad(context.update(data) + context.finalize(), cipher.block)
