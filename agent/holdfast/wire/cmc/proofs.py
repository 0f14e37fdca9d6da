"""Proofs by a shared secret and by decryption (RFC 10002 §6.2, §6.3.1, §6.7).

SHA-256 everywhere. SHA-1 is made and read only where the caller names it: RFC 5272 knew nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from holdfast.wire import algorithm_oids as oids
from holdfast.wire import der
from holdfast.wire.cmc.messages import reading
from holdfast.wire.errors import LocalProtocolError, TrustError
from holdfast.wire.identified import Algorithm, read_algorithm

SHA256: Final = Algorithm(oids.SHA256)
HMAC_SHA256: Final = Algorithm(oids.HMAC_SHA256)
SHA1: Final = Algorithm(oids.SHA1)
HMAC_SHA1: Final = Algorithm(oids.HMAC_SHA1)
MOST_SECRET: Final = 64
"""Octets of a proof value that are used as a key (RFC 10002 §6.7)."""

_DIGESTS: Final = {oids.SHA256: "sha256", oids.SHA384: "sha384", oids.SHA512: "sha512"}
_MACS: Final = {oids.HMAC_SHA256: "sha256", oids.HMAC_SHA384: "sha384", oids.HMAC_SHA512: "sha512"}
_OLD: Final = {oids.SHA1: "sha1", oids.HMAC_SHA1: "sha1", oids.HMAC_SHA1_ISAKMP: "sha1"}


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """What the operator agreed on with the CA. ``identification`` names it, empty where it has no name."""

    secret: bytes = field(repr=False)
    identification: str = ""

    def __post_init__(self) -> None:
        if not self.secret:
            raise LocalProtocolError("cmc.secret", "a shared secret is not empty")

    @property
    def material(self) -> bytes:
        """What the key of an identity proof is hashed from: with its name, if that is sent (§6.2.3)."""
        return self.secret + self.identification.encode()


@dataclass(frozen=True, slots=True)
class Witness:
    """IdentityProofV2 and PopLinkWitnessV2 look the same: how the key is made, how the MAC, and the MAC."""

    digest: Algorithm
    mac: Algorithm
    witness: bytes

    def encode(self) -> bytes:
        return der.sequence(self.digest.encode(), self.mac.encode(), der.octets(self.witness))


def read_witness(value: bytes) -> Witness:
    """Raises RemoteProtocolError ``cmc.syntax``."""
    with reading("witness"):
        cursor = der.read_one(value)
        found = Witness(read_algorithm(cursor), read_algorithm(cursor), cursor.octets())
        cursor.close()
    return found


def prove(
    material: bytes, covered: bytes, digest: Algorithm = SHA256, mac: Algorithm = HMAC_SHA256
) -> Witness:
    """A witness by what is hashed from *material* over *covered*."""
    return Witness(digest, mac, compute(mac, hash_of(digest, material, sha1=True), covered, sha1=True))


def check(witness: Witness, material: bytes, covered: bytes, *, sha1: bool = False) -> None:
    """Raise TrustError ``cmc.witness`` unless *witness* was made from the same; ``cmc.algorithm``."""
    key = hash_of(witness.digest, material, sha1=sha1)
    if not hmac.compare_digest(compute(witness.mac, key, covered, sha1=sha1), witness.witness):
        raise TrustError(
            "cmc.witness", "the witness was not made with this secret", clause="RFC 10002 §6.2.1"
        )


def hash_of(algorithm: Algorithm, data: bytes, *, sha1: bool = False) -> bytes:
    """Raises TrustError ``cmc.algorithm``; *sha1* accepts that, too."""
    return hashlib.new(_named(algorithm, _DIGESTS, sha1=sha1), data).digest()


def compute(algorithm: Algorithm, key: bytes, data: bytes, *, sha1: bool = False) -> bytes:
    """The MAC of *data*. Raises TrustError ``cmc.algorithm``."""
    return hmac.new(key, data, _named(algorithm, _MACS, sha1=sha1)).digest()


def _named(algorithm: Algorithm, known: dict[str, str], *, sha1: bool) -> str:
    name = known.get(algorithm.oid) or (_OLD.get(algorithm.oid) if sha1 else None)
    if name is None:
        old = algorithm.oid in _OLD
        detail = "SHA-1; `legacy: [sha1]` in the configuration allows it" if old else f"{algorithm.oid}"
        raise TrustError("cmc.algorithm", detail, clause="RFC 10004")
    return name
