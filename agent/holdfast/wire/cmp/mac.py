"""Protection by a shared secret: password-based MAC and PBMAC1 (RFC 9481 §6.1, RFC 8018 §7.1).

The iteration count of a peer's message is work that it orders from us before it has proved anything, so it
is bounded before the first hash; below the lower bound the MAC tells too much about the secret. SHA-1 is
refused, except in an HMAC where the operator allows it: OpenSSL's servers know no other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from holdfast.wire import algorithm_oids, der
from holdfast.wire.cmp import oids
from holdfast.wire.cmp.message import reading
from holdfast.wire.der import Cursor
from holdfast.wire.errors import TrustError
from holdfast.wire.identified import Algorithm, read_algorithm

FEWEST: Final = 100
"""Iterations that anybody must make at least (RFC 9481 §6.1.1)."""

MOST: Final = 200_000
"""Iterations that are made for a peer: about 0.1 s on a small machine."""

LONGEST_SALT: Final = 256

_OWF: Final[Mapping[str, str]] = MappingProxyType(
    {algorithm_oids.SHA256: "sha256", algorithm_oids.SHA384: "sha384", algorithm_oids.SHA512: "sha512"}
)
_HMAC: Final[Mapping[str, str]] = MappingProxyType(
    {
        algorithm_oids.HMAC_SHA256: "sha256",
        algorithm_oids.HMAC_SHA384: "sha384",
        algorithm_oids.HMAC_SHA512: "sha512",
    }
)
_SHA1: Final[Mapping[str, str]] = MappingProxyType(
    {algorithm_oids.HMAC_SHA1: "sha1", algorithm_oids.HMAC_SHA1_ISAKMP: "sha1"}
)
_WEAK: Final = frozenset({algorithm_oids.SHA1, *_SHA1})


@dataclass(frozen=True, slots=True)
class MacParameters:
    """How a message is protected by a secret. ``kind`` is ``pbm`` or ``pbmac1``.

    ``owf`` is the hash of the one-way function, or of PBKDF2; ``mac`` the hash of the HMAC. ``key_length``
    counts for PBMAC1 alone.
    """

    kind: str
    salt: bytes = field(repr=False)
    iterations: int
    owf: str = algorithm_oids.SHA256
    mac: str = algorithm_oids.HMAC_SHA256
    key_length: int = 32

    def again(self, salt: bytes) -> MacParameters:
        """The same for another message: only the salt is new."""
        return MacParameters(self.kind, salt, self.iterations, self.owf, self.mac, self.key_length)

    def algorithm(self) -> Algorithm:
        """As the header carries it."""
        if self.kind == "pbm":
            parameters = der.sequence(
                der.octets(self.salt),
                Algorithm(self.owf).encode(),
                der.integer(self.iterations),
                Algorithm(self.mac).encode(),
            )
            return Algorithm(oids.PASSWORD_BASED_MAC, parameters)
        derivation = der.sequence(
            der.octets(self.salt),
            der.integer(self.iterations),
            der.integer(self.key_length),
            Algorithm(self.owf, der.null()).encode(),
        )
        function = Algorithm(algorithm_oids.PBKDF2, derivation).encode()
        scheme = Algorithm(self.mac, der.null()).encode()
        return Algorithm(oids.PBMAC1, der.sequence(function, scheme))

    def compute(self, secret: bytes, data: bytes) -> bytes:
        """The MAC of *data*. The caller has bounded the iterations."""
        if self.kind == "pbm":
            digest = _OWF[self.owf]
            key = stretch(digest, secret + self.salt, self.iterations)
        else:
            digest = _HMAC[self.owf]
            key = hashlib.pbkdf2_hmac(digest, secret, self.salt, self.iterations, self.key_length)
        return hmac.digest(key, data, {**_HMAC, **_SHA1}[self.mac])


def stretch(digest: str, start: bytes, iterations: int) -> bytes:
    """The one-way function applied *iterations* times (RFC 4211 §4.4).

    Its length is never below what the HMACs here need, so the RFC's way to lengthen a key is not met.
    """
    step: Callable[[bytes], hashlib._Hash] = getattr(hashlib, digest)
    key = start
    for _ in range(iterations):
        key = step(key).digest()
    return key


def is_mac(algorithm: Algorithm) -> bool:
    """Whether *algorithm* protects by a shared secret."""
    return algorithm.oid in {oids.PASSWORD_BASED_MAC, oids.PBMAC1}


def read_parameters(algorithm: Algorithm, *, most: int = MOST, hmac_sha1: bool = False) -> MacParameters:
    """What a peer's header says, if it is within the bounds. No hash is computed here.

    Raises RemoteProtocolError ``cmp.syntax``; TrustError ``cmp.mac-iterations`` and ``cmp.mac-algorithm``.
    """
    with reading("parameters of the MAC"):
        cursor = der.read_one(algorithm.parameters)
        found = _pbm(cursor) if algorithm.oid == oids.PASSWORD_BASED_MAC else _pbmac1(cursor)
        if not 0 < len(found.salt) <= LONGEST_SALT:
            raise ValueError(f"a salt of {len(found.salt)} octets")
    if not FEWEST <= found.iterations <= most:
        detail = f"{found.iterations} iterations, from {FEWEST} to {most} are accepted"
        raise TrustError("cmp.mac-iterations", detail, clause="RFC 9481 §6.1.1")
    owf = _OWF if found.kind == "pbm" else _HMAC
    allowed = {**_HMAC, **_SHA1} if hmac_sha1 else _HMAC
    if found.owf not in owf or found.mac not in allowed:
        weak = "weak" if _WEAK & {found.owf, found.mac} else "unknown"
        detail = f"{weak} algorithm: {found.owf} with {found.mac}"
        raise TrustError("cmp.mac-algorithm", detail, clause="RFC 9481 §6.1")
    return found


def _pbm(cursor: Cursor) -> MacParameters:
    salt, owf = cursor.octets(), read_algorithm(cursor)
    iterations, mac = cursor.integer(), read_algorithm(cursor)
    cursor.close()
    return MacParameters("pbm", salt, iterations, owf.oid, mac.oid)


def _pbmac1(cursor: Cursor) -> MacParameters:
    derivation, scheme = read_algorithm(cursor), read_algorithm(cursor)
    cursor.close()
    if derivation.oid != algorithm_oids.PBKDF2:
        raise ValueError(f"key derivation {derivation.oid}")
    inner = der.read_one(derivation.parameters)
    salt, iterations = inner.octets(), inner.integer()
    length = inner.integer() if inner.peek() == der.INTEGER else 32
    # Absent means HMAC with SHA-1 (RFC 8018 §A.2), which is refused like one that is spelt out.
    prf = read_algorithm(inner).oid if inner.more else algorithm_oids.HMAC_SHA1
    inner.close()
    if not 16 <= length <= 64:
        raise ValueError(f"a key of {length} octets")
    return MacParameters("pbmac1", salt, iterations, prf, scheme.oid, length)


def check(
    algorithm: Algorithm,
    secret: bytes,
    protected: tuple[bytes, bytes],
    *,
    most: int = MOST,
    hmac_sha1: bool = False,
) -> MacParameters:
    """Check the MAC of *protected*, which is data and MAC. Returns its parameters.

    Raises what :func:`read_parameters` raises, and TrustError ``cmp.protection``.
    """
    parameters = read_parameters(algorithm, most=most, hmac_sha1=hmac_sha1)
    data, value = protected
    if not hmac.compare_digest(parameters.compute(secret, data), value):
        detail = "the MAC does not fit the shared secret and the message"
        raise TrustError("cmp.protection", detail, clause="RFC 9810 §5.1.3")
    return parameters
