"""EME-OAEP decoding in software (RFC 8017 §7.1.2), for tokens that offer the raw private operation only.

SoftHSM2 knows OAEP with SHA-1 alone. Whatever is wrong with a block, one answer comes, after the same steps.
"""

from __future__ import annotations

import hashlib
import hmac

from holdfast.keys.rsapss import mgf1
from holdfast.wire.errors import KeyStoreError


def decode_oaep(block: bytes, algorithm: str) -> bytes:
    """The message in *block*, which is as long as the modulus; MGF1 uses the same hash, the label is empty.

    Raises KeyStoreError(``key.decrypt-failed``), which does not tell why.
    """
    empty = hashlib.new(algorithm, b"").digest()
    size = len(empty)
    if len(block) < 2 * size + 2:
        raise _failed()
    masked_seed, masked = block[1 : size + 1], block[size + 1 :]
    seed = _xor(masked_seed, mgf1(masked, size, algorithm))
    data = _xor(masked, mgf1(seed, len(masked), algorithm))
    rest = data[size:]
    mark = rest.find(b"\x01")
    good = hmac.compare_digest(data[:size], empty)
    good &= block[0] == 0
    good &= mark >= 0 and not any(rest[:mark])
    if not good:
        raise _failed()
    return rest[mark + 1 :]


def _failed() -> KeyStoreError:
    return KeyStoreError("key.decrypt-failed", "the ciphertext is not for this key")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
