"""TPMT_PUBLIC: what a TPM says of a key: kind, attributes, and the public key (TPM 2.0 Part 2 §12.2.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.wire.algorithms import PublicKey
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.tpm.octets import Octets, sized

RSA: Final = 0x0001
ECC: Final = 0x0023
NULL: Final = 0x0010
_RSAES: Final = 0x0015
_ECDAA: Final = 0x001A
_RSA_BITS: Final = range(1024, 8193)

HASHES: Final = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
"""TPM_ALG_ID of the digests that we accept."""

_CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {
    0x0003: ec.SECP256R1,
    0x0004: ec.SECP384R1,
    0x0005: ec.SECP521R1,
}

FIXED_TPM: Final = 1 << 1
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
USER_WITH_AUTH: Final = 1 << 6
ADMIN_WITH_POLICY: Final = 1 << 7
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18

_NAMES: Final = {
    FIXED_TPM: "fixedTPM",
    FIXED_PARENT: "fixedParent",
    SENSITIVE_DATA_ORIGIN: "sensitiveDataOrigin",
    USER_WITH_AUTH: "userWithAuth",
    ADMIN_WITH_POLICY: "adminWithPolicy",
    RESTRICTED: "restricted",
    DECRYPT: "decrypt",
    SIGN: "sign",
}

HARDWARE_BOUND: Final = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN
"""Made in this TPM and never able to leave it."""


@dataclass(frozen=True, slots=True)
class TpmPublic:
    """A parsed public area. ``name_hash`` is a hashlib name; ``area`` the octets as received.

    ``symmetric``: (algorithm, key bits, mode) of a storage key, None for others.
    """

    area: bytes = field(repr=False)
    name_hash: str
    attributes: int
    policy: bytes = field(repr=False)
    key: PublicKey
    symmetric: tuple[int, int, int] | None = None

    @property
    def name(self) -> bytes:
        """The TPM's Name of the key: nameAlg and the digest of the public area (Part 1 §16)."""
        digest = hashlib.new(self.name_hash, self.area).digest()
        return self.area[2:4] + digest

    def lacking(self, wanted: int) -> tuple[str, ...]:
        """The names of the attributes of *wanted* that this key does not have."""
        return tuple(name for bit, name in _NAMES.items() if wanted & bit and not self.attributes & bit)


def parse_public(area: bytes) -> TpmPublic:
    """Read a TPMT_PUBLIC, or a TPM2B_PUBLIC around one.

    Raises RemoteProtocolError ``tpm.syntax``, ``tpm.too-large``, ``tpm.algorithm``.
    """
    if len(area) > 2 and int.from_bytes(area[:2], "big") == len(area) - 2:
        area = area[2:]
    octets = Octets(area, "the public area")
    kind = octets.number(2)
    name_hash = HASHES.get(octets.number(2))
    if name_hash is None:
        raise RemoteProtocolError(
            "tpm.algorithm", "a Name by an unknown digest", clause="TPM 2.0 Part 2 §9.2"
        )
    attributes = octets.number(4)
    policy = octets.sized()
    symmetric = _symmetric(octets)
    if kind == RSA:
        key: PublicKey = _rsa(octets)
    elif kind == ECC:
        key = _ecc(octets)
    else:
        raise RemoteProtocolError(
            "tpm.algorithm", f"a key of type {kind:#06x}", clause="TPM 2.0 Part 2 §12.2.2"
        )
    octets.end()
    return TpmPublic(area, name_hash, attributes, policy, key, symmetric)


def _symmetric(octets: Octets) -> tuple[int, int, int] | None:
    algorithm = octets.number(2)
    return None if algorithm == NULL else (algorithm, octets.number(2), octets.number(2))


def _scheme(octets: Octets) -> None:
    """A signing, encryption or derivation scheme: passed over, the signature names what was used."""
    scheme = octets.number(2)
    if scheme in (NULL, _RSAES):
        return
    octets.number(2)
    if scheme == _ECDAA:
        octets.number(2)


def _rsa(octets: Octets) -> rsa.RSAPublicKey:
    _scheme(octets)
    bits, exponent = octets.number(2), octets.number(4) or 65537
    modulus = int.from_bytes(octets.sized(), "big")
    if bits not in _RSA_BITS or modulus.bit_length() != bits:
        detail = f"a modulus of {modulus.bit_length()} bits where {bits} are stated"
        raise RemoteProtocolError("tpm.syntax", detail, clause="TPM 2.0 Part 2 §12.2.3.5")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("tpm.syntax", f"no RSA key: {error}"[:200]) from error


def _ecc(octets: Octets) -> ec.EllipticCurvePublicKey:
    _scheme(octets)
    curve = _CURVES.get(identifier := octets.number(2))
    _scheme(octets)  # the key derivation scheme has the same form
    x, y = (int.from_bytes(octets.sized(), "big") for _ in range(2))
    if curve is None:
        raise RemoteProtocolError("tpm.algorithm", f"curve {identifier:#06x}", clause="TPM 2.0 Part 2 §6.4")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("tpm.syntax", f"no point of the curve: {error}"[:200]) from error


def sized_public(public: TpmPublic) -> bytes:
    """TPM2B_PUBLIC."""
    return sized(public.area)
