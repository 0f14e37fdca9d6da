"""TPMS_ATTEST and TPMT_SIGNATURE: what one key of a TPM states of another (TPM 2.0 Part 2 §10.12, §11.3)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from holdfast.wire.algorithms import DIGESTS, Digest, PublicKey, verify
from holdfast.wire.errors import TrustError
from holdfast.wire.tpm.octets import Octets
from holdfast.wire.tpm.public import HASHES, TpmPublic

MAGIC: Final = 0xFF544347
CERTIFY: Final = 0x8017
_RSASSA, _RSAPSS, _ECDSA = 0x0014, 0x0016, 0x0018
_PART2: Final = "TPM 2.0 Part 2 §10.12.8"


@dataclass(frozen=True, slots=True)
class Certified:
    """A TPM2_Certify statement: ``name`` is the certified key's Name, ``extra`` the qualifying data."""

    signer: bytes = field(repr=False)
    extra: bytes = field(repr=False)
    name: bytes = field(repr=False)
    firmware: int


def parse_certify(data: bytes) -> Certified:
    """Read a TPMS_ATTEST of TPM2_Certify.

    Raises TrustError ``attest.magic`` (not made inside a TPM), ``attest.type``; RemoteProtocolError
    ``tpm.syntax``.
    """
    octets = Octets(data, "the attestation")
    if (magic := octets.number(4)) != MAGIC:
        raise TrustError(
            "attest.magic", f"the statement begins with {magic:#010x}, not TPM_GENERATED", clause=_PART2
        )
    if (kind := octets.number(2)) != CERTIFY:
        raise TrustError(
            "attest.type", f"a statement of type {kind:#06x}, not TPM_ST_ATTEST_CERTIFY", clause=_PART2
        )
    signer, extra = octets.sized(), octets.sized()
    octets.take(17)  # clock, resets, restarts, safe
    firmware = octets.number(8)
    name = octets.sized()
    octets.sized()  # the qualified name
    octets.end()
    return Certified(signer, extra, name, firmware)


def verify_statement(statement: bytes, signature: bytes, key: PublicKey) -> str:
    """Check a TPMT_SIGNATURE over *statement*; returns the digest's hashlib name.

    Raises TrustError ``attest.signature``, ``attest.algorithm``; RemoteProtocolError ``tpm.syntax``.
    """
    octets = Octets(signature, "the signature")
    scheme, digest_name = octets.number(2), HASHES.get(octets.number(2))
    if digest_name is None:
        raise TrustError("attest.algorithm", "a signature with an unknown or weak digest")
    digest = DIGESTS[digest_name]()
    salts: tuple[int | None, ...]
    if scheme == _ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
        r, s = (int.from_bytes(octets.sized(), "big") for _ in range(2))
        octets.end()
        value, salts = encode_dss_signature(r, s), (None,)
    elif scheme in (_RSASSA, _RSAPSS) and isinstance(key, rsa.RSAPublicKey):
        value = octets.sized()
        octets.end()
        salts = _salts(key, digest) if scheme == _RSAPSS else (None,)
    else:
        raise TrustError("attest.algorithm", f"scheme {scheme:#06x} does not fit the attestation key")
    _verify_any(key, value, statement, digest, salts)
    return digest_name


def require_certified(statement: Certified, public: TpmPublic, extra: bytes) -> None:
    """Hold *statement* against the key and the qualifying data that it must be about.

    Raises TrustError ``attest.name``, ``attest.extra-data``.
    """
    if not hmac.compare_digest(statement.extra, extra):
        detail = "the statement was made for another challenge"
        raise TrustError("attest.extra-data", detail, clause="WebAuthn §8.3")
    if not hmac.compare_digest(statement.name, public.name):
        raise TrustError("attest.name", "the statement is about another key", clause=_PART2)


def _verify_any(
    key: PublicKey, value: bytes, statement: bytes, digest: Digest, salts: tuple[int | None, ...]
) -> None:
    for salt in salts:
        try:
            return verify(key, value, statement, digest, pss_salt=salt)
        except TrustError:
            continue
    raise TrustError("attest.signature", "the attestation key did not sign this statement")


def _salts(key: rsa.RSAPublicKey, digest: Digest) -> tuple[int, ...]:
    """How long the salt may be: as the digest, or (older chips) all there is room for."""
    return digest.digest_size, (key.key_size + 6) // 8 - digest.digest_size - 2
