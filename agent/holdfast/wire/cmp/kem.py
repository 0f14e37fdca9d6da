"""Protection by a KEM key: the MAC, its key and its encodings (RFC 9810 §5.1.3.4).

Whoever knows the certificate of a KEM key can make a ciphertext for it. So this MAC proves the holder of the
private key to the one who made the ciphertext, and nothing the other way round.

HKDF with SHA-256 derives the key, HMAC with SHA-256 makes the MAC; nothing else is taken.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.wire import algorithm_oids, der
from holdfast.wire.cmp import oids
from holdfast.wire.cmp.message import MAX_IDENTIFIER, Message, reading
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.identified import Algorithm, read_algorithm

CLAUSE: Final = "RFC 9810 §5.1.3.4"
SHARED: Final = 32
"""Octets of the secret that ML-KEM gives both sides."""

CIPHERTEXTS: Final[Mapping[str, int]] = MappingProxyType(
    {oids.ML_KEM_512: 768, oids.ML_KEM_768: 1088, oids.ML_KEM_1024: 1568}
)
"""Octets of a ciphertext, by the algorithm (FIPS 203 table 3)."""

KEY_LENGTHS: Final = range(32, 65)
LONGEST_CONTEXT: Final = 256


@dataclass(frozen=True, slots=True)
class KemCiphertext:
    """KemCiphertextInfo: the algorithm of the KEM, and the ciphertext."""

    kem: str
    ciphertext: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.sequence(Algorithm(self.kem).encode(), der.octets(self.ciphertext))


def read_ciphertext(value: bytes) -> KemCiphertext:
    """KemCiphertextInfo, of a known KEM and of its length.

    Raises RemoteProtocolError ``cmp.syntax`` and ``cmp.kem-ciphertext``.
    """
    with reading("KemCiphertextInfo"):
        cursor = der.read_one(value)
        kem, ciphertext = read_algorithm(cursor), cursor.octets()
        cursor.close()
    size = CIPHERTEXTS.get(kem.oid)
    if kem.parameters or size is None:
        raise RemoteProtocolError("cmp.kem-ciphertext", f"unknown KEM {kem.oid}", clause=CLAUSE)
    if len(ciphertext) != size:
        detail = f"a ciphertext of {len(ciphertext)} octets, {kem.oid} makes {size}"
        raise RemoteProtocolError("cmp.kem-ciphertext", detail, clause=CLAUSE)
    return KemCiphertext(kem.oid, ciphertext)


def other_info(transaction: bytes, context: bytes | None = None) -> bytes:
    """KemOtherInfo: what binds the key to a transaction."""
    extra = b"" if context is None else der.explicit(0, der.octets(context))
    return der.sequence(der.sequence(der.text("CMP-KEM")), der.octets(transaction), extra)


@dataclass(frozen=True, slots=True)
class KemParameters:
    """KemBMParameter, without what is always the same. ``length``: octets of the MAC's key."""

    length: int = 32
    context: bytes | None = None

    def algorithm(self) -> Algorithm:
        """As the header carries it."""
        extra = b"" if self.context is None else der.explicit(0, der.octets(self.context))
        parameters = der.sequence(
            Algorithm(oids.HKDF_SHA256).encode(),
            extra,
            der.integer(self.length),
            Algorithm(algorithm_oids.HMAC_SHA256).encode(),
        )
        return Algorithm(oids.KEM_BASED_MAC, parameters)

    def compute(self, shared: bytes, transaction: bytes, data: bytes) -> bytes:
        """The MAC of *data* in *transaction*."""
        info = other_info(transaction, self.context)
        key = HKDF(hashes.SHA256(), self.length, salt=None, info=info).derive(shared)
        return hmac.digest(key, data, "sha256")


def read_parameters(algorithm: Algorithm) -> KemParameters:
    """What a peer's header says, if it is within the bounds. No key is derived here.

    Raises RemoteProtocolError ``cmp.syntax``; TrustError ``cmp.mac-algorithm``.
    """
    context = None
    with reading("KemBMParameter"):
        cursor = der.read_one(algorithm.parameters)
        kdf = read_algorithm(cursor)
        if found := cursor.maybe(0xA0):
            context = found.octets()
            found.close()
        length, mac = cursor.integer(), read_algorithm(cursor)
        cursor.close()
        if context is not None and len(context) > LONGEST_CONTEXT:
            raise ValueError(f"kemContext of {len(context)} octets")
        if length not in KEY_LENGTHS:
            raise ValueError(f"a key of {length} octets")
    if kdf != Algorithm(oids.HKDF_SHA256):
        raise TrustError("cmp.mac-algorithm", f"key derivation {kdf.oid}", clause=CLAUSE)
    if mac.oid != algorithm_oids.HMAC_SHA256 or mac.parameters not in (b"", der.null()):
        raise TrustError("cmp.mac-algorithm", f"MAC {mac.oid}", clause=CLAUSE)
    return KemParameters(length, context)


def check(message: Message, shared: bytes, transaction: bytes) -> KemParameters:
    """Check the MAC of *message*, for which *shared* was agreed on in *transaction*.

    Raises what :func:`read_parameters` raises, TrustError ``cmp.protection-kind`` and ``cmp.protection``.
    """
    algorithm, value = message.header.protection, message.protection
    if algorithm is None or value is None or algorithm.oid != oids.KEM_BASED_MAC:
        raise TrustError("cmp.protection-kind", "not protected by a KEM key", clause=CLAUSE)
    parameters = read_parameters(algorithm)
    if not 0 < len(transaction) <= MAX_IDENTIFIER or message.header.transaction != transaction:
        raise TrustError("cmp.protection", "the key belongs to another transaction", clause=CLAUSE)
    if not hmac.compare_digest(parameters.compute(shared, transaction, message.protected), value):
        detail = "the MAC does not fit the encapsulated secret and the message"
        raise TrustError("cmp.protection", detail, clause=CLAUSE)
    return parameters
