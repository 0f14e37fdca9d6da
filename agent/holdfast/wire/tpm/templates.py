"""The TCG's templates of a device's first keys: the IDevID signs, the IAK (restricted) attests.

"TPM 2.0 Keys for Device Identity and Attestation" §7.3: primary keys of the endorsement hierarchy, set apart
by ``unique``, whose ADMIN role (to certify the key, to activate a credential for it) needs a policy. Its four
branches are given here as the digests that a policy session reaches; the fourth delegates to an NV index
(PolicyAuthorizeNV) and is not used by us.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from holdfast.wire.errors import TrustError
from holdfast.wire.tpm.octets import sized
from holdfast.wire.tpm.public import (
    ADMIN_WITH_POLICY,
    ECC,
    HARDWARE_BOUND,
    NULL,
    RESTRICTED,
    RSA,
    SIGN,
    USER_WITH_AUTH,
    TpmPublic,
)

CERTIFY: Final = 0x148
ACTIVATE_CREDENTIAL: Final = 0x147
ENDORSEMENT: Final = 0x4000000B
_POLICY_SECRET, _POLICY_COMMAND_CODE, _POLICY_OR, _POLICY_AUTHORIZE_NV = 0x151, 0x16C, 0x171, 0x192
_ECDSA, _RSAPSS = 0x0018, 0x0016
_DIGESTS: Final = {"sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
# POLICYWRITE, WRITEALL, PPREAD, OWNERREAD, AUTHREAD, POLICYREAD, NO_DA, WRITTEN
_POLICY_INDEX_ATTRIBUTES: Final = 0x220F1008
_CLAUSE: Final = "TCG DevID §7.3.4"


class Level(Enum):
    """The templates H-1 to H-4. H-5 (SM2 with SM3) is left out: no library here checks its signatures."""

    H1 = "RSA-2048, SHA-256"
    H2 = "P-256, SHA-256"
    H3 = "P-384, SHA-384"
    H4 = "P-521, SHA-512"


@dataclass(frozen=True, slots=True)
class Template:
    """A TPMT_PUBLIC to make a key from. ``fixed`` is all of it up to ``unique``, which every key made from
    it has in common; ``branches`` are the four digests that its policy accepts; ``digest`` is a hashlib
    name."""

    name: str
    digest: str
    attributes: int
    fixed: bytes = field(repr=False)
    unique: bytes = field(repr=False)
    branches: tuple[bytes, ...] = field(repr=False)

    @property
    def area(self) -> bytes:
        return self.fixed + self.unique

    def require(self, public: TpmPublic) -> None:
        """Hold a key against the template: kind, attributes, policy, scheme and size, octet by octet.

        Raises TrustError ``devid.attributes``, ``devid.template``.
        """
        if lacking := public.lacking(self.attributes):
            raise TrustError(
                "devid.attributes", f"the {self.name} lacks {', '.join(lacking)}", clause=_CLAUSE
            )
        if not public.area.startswith(self.fixed):
            raise TrustError(
                "devid.template", f"the {self.name} was not made from the template", clause=_CLAUSE
            )


def idevid(level: Level) -> Template:
    """The IDevID key: signs what it is given."""
    return _template("IDevID", b"IDEVID", 0x01C90010, SIGN, level)


def iak(level: Level) -> Template:
    """The initial attestation key: signs only what its own TPM made."""
    return _template("IAK", b"IAK", 0x01C90018, SIGN | RESTRICTED, level)


def level_of(public: TpmPublic) -> Level:
    """The template whose kind and size *public* has. Raises TrustError ``devid.template``."""
    for level in Level:
        if public.area[:4] == idevid(level).fixed[:4] and _size(level) == public.key.key_size:
            return level
    raise TrustError("devid.template", "a key of another kind than H-1 to H-4 make", clause=_CLAUSE)


def policy_branches(digest: str, policy_index: int) -> tuple[bytes, ...]:
    """What a session must have reached: owner of the endorsement hierarchy, and he certifying, and he
    activating, or what the NV index *policy_index* holds (TCG DevID §7.3.6, figures 10 and 11)."""
    zero = bytes(hashlib.new(digest).digest_size)
    secret = _extend(
        digest, _extend(digest, zero, _POLICY_SECRET.to_bytes(4, "big") + ENDORSEMENT.to_bytes(4, "big"))
    )
    certify, activate = (
        _extend(digest, secret, _POLICY_COMMAND_CODE.to_bytes(4, "big") + code.to_bytes(4, "big"))
        for code in (CERTIFY, ACTIVATE_CREDENTIAL)
    )
    algorithm = _DIGESTS[digest].to_bytes(2, "big")
    index = policy_index.to_bytes(4, "big") + algorithm + _POLICY_INDEX_ATTRIBUTES.to_bytes(4, "big")
    space = index + sized(secret) + (len(zero) + 2).to_bytes(2, "big")
    name = algorithm + hashlib.new(digest, space).digest()
    delegated = _extend(digest, zero, _POLICY_AUTHORIZE_NV.to_bytes(4, "big") + name)
    return secret, certify, activate, delegated


def _extend(digest: str, before: bytes, more: bytes = b"") -> bytes:
    return hashlib.new(digest, before + more).digest()


def _template(name: str, unique: bytes, policy_index: int, role: int, level: Level) -> Template:
    kind, digest, offset = _KINDS[level]
    attributes = HARDWARE_BOUND | USER_WITH_AUTH | ADMIN_WITH_POLICY | role
    branches = policy_branches(digest, policy_index + offset)
    zero = bytes(len(branches[0]))
    policy = _extend(digest, zero, _POLICY_OR.to_bytes(4, "big") + b"".join(branches))
    head = kind.to_bytes(2, "big") + _DIGESTS[digest].to_bytes(2, "big") + attributes.to_bytes(4, "big")
    parameters = _rsa(bool(role & RESTRICTED), digest) if kind == RSA else _ecc(level, digest)
    whole = sized(unique) if kind == RSA else sized(unique) + sized(unique)
    return Template(name, digest, attributes, head + sized(policy) + parameters, whole, branches)


def _rsa(restricted: bool, digest: str) -> bytes:
    scheme = _numbers(_RSAPSS, _DIGESTS[digest]) if restricted else _numbers(NULL)
    return _numbers(NULL) + scheme + _numbers(2048) + bytes(4)


def _ecc(level: Level, digest: str) -> bytes:
    curve = {Level.H2: 0x0003, Level.H3: 0x0004, Level.H4: 0x0005}[level]
    return _numbers(NULL, _ECDSA, _DIGESTS[digest], curve, NULL)


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _size(level: Level) -> int:
    return {Level.H1: 2048, Level.H2: 256, Level.H3: 384, Level.H4: 521}[level]


_KINDS: Final = {
    Level.H1: (RSA, "sha256", 0),
    Level.H2: (ECC, "sha256", 0),
    Level.H3: (ECC, "sha384", 1),
    Level.H4: (ECC, "sha512", 2),
}
