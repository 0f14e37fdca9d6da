"""TPM2_MakeCredential in software: a secret that only one TPM can open, and only for one key.

A CA encrypts a secret to the endorsement key (EK) and binds it to the Name of the key to be certified.
TPM2_ActivateCredential gives it out only in the TPM that holds both (TPM 2.0 Part 1 §24).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from holdfast.wire.algorithms import DIGESTS
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.model import RandomBytes
from holdfast.wire.tpm.octets import sized
from holdfast.wire.tpm.public import DECRYPT, RESTRICTED, TpmPublic

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before cryptography moved it there
    from cryptography.hazmat.primitives.ciphers.modes import CFB

_AES: Final = 0x0006
_CFB: Final = 0x0043
_IDENTITY: Final = b"IDENTITY\0"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What TPM2_ActivateCredential takes: the insides of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    id_object: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)


def make_credential(ek: TpmPublic, name: bytes, secret: bytes, random: RandomBytes) -> Sealed:
    """Seal *secret* (at most as long as the EK's Name digest) for the TPM of *ek* and the key called *name*.

    Raises LocalProtocolError ``tpm.secret``; RemoteProtocolError ``tpm.ek`` for a key that is no storage key.
    """
    digest = DIGESTS[ek.name_hash]()
    if len(secret) > digest.digest_size:
        raise LocalProtocolError("tpm.secret", f"{len(secret)} octets, at most {digest.digest_size}")
    if ek.symmetric is None or ek.symmetric[0] != _AES or ek.symmetric[2] != _CFB:
        raise RemoteProtocolError("tpm.ek", "the EK names no AES in CFB mode", clause="TPM 2.0 Part 1 §24")
    if ek.lacking(RESTRICTED | DECRYPT):
        raise RemoteProtocolError(
            "tpm.ek", "the EK is no restricted decryption key", clause="TPM 2.0 Part 1 §24"
        )
    seed, encrypted_seed = _seed(ek, digest, random)
    key = _kdfa(digest, seed, b"STORAGE", name, ek.symmetric[1])
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(sized(secret)) + encryptor.finalize()
    integrity_key = _kdfa(digest, seed, b"INTEGRITY", b"", digest.digest_size * 8)
    integrity = hmac.new(integrity_key, identity + name, ek.name_hash).digest()
    return Sealed(sized(integrity) + identity, encrypted_seed)


def _seed(ek: TpmPublic, digest: hashes.HashAlgorithm, random: RandomBytes) -> tuple[bytes, bytes]:
    """The seed of both keys, and its form that only the EK can read (Part 1 §B.10.3, §C.6.1)."""
    if isinstance(ek.key, rsa.RSAPublicKey):
        seed = random(digest.digest_size)
        oaep = padding.OAEP(padding.MGF1(digest), digest, _IDENTITY)
        return seed, ek.key.encrypt(seed, oaep)
    size = (ek.key.key_size + 7) // 8
    order = _ORDERS[ek.key.curve.name]
    scalar = int.from_bytes(random(size + 8), "big") % (order - 1) + 1
    ephemeral = ec.derive_private_key(scalar, ek.key.curve)
    ours, theirs = ephemeral.public_key().public_numbers(), ek.key.public_numbers()
    shared = ephemeral.exchange(ec.ECDH(), ek.key)
    info = _IDENTITY + ours.x.to_bytes(size, "big") + theirs.x.to_bytes(size, "big")
    seed = ConcatKDFHash(digest, digest.digest_size, info).derive(shared)
    point = sized(ours.x.to_bytes(size, "big")) + sized(ours.y.to_bytes(size, "big"))
    return seed, point


def _kdfa(digest: hashes.HashAlgorithm, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1 §11.4.10.2): SP 800-108 in counter mode, the label ended by a NUL."""
    return KBKDFHMAC(
        algorithm=digest,
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(key)


_ORDERS: Final = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": (1 << 384) - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "secp521r1": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
"""Of the curves' groups (FIPS 186-5), so that the ephemeral key can come from the caller's randomness."""
