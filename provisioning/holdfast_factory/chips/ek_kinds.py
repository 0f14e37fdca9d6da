"""The endorsement keys that chips come with: templates and places (TCG EK Credential Profile, appendix B)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from holdfast.wire.errors import KeyStoreError
from holdfast.wire.tpm.octets import sized

_FIXED: Final = 0x000300B2  # fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt
_USER_WITH_AUTH: Final = 0x40
_RSA, _ECC = b"\x00\x01", b"\x00\x23"
_AES_CFB: Final = {128: b"\x00\x06\x00\x80\x00\x43", 256: b"\x00\x06\x01\x00\x00\x43"}
_NULL: Final = b"\x00\x10"
_SHA256, _SHA384 = b"\x00\x0b", b"\x00\x0c"
_POLICY_SECRET: Final = bytes.fromhex("00000151") + bytes.fromhex("4000000b")
CHAIN: Final = range(0x01C00100, 0x01C00200)
"""Where NV holds the issuers of the EK's certificate."""


@dataclass(frozen=True, slots=True)
class EkKind:
    """One kind: where its certificate is, where a nonce or a template of its own would be, the persistent
    handle that the TCG gives it, and the TPMT_PUBLIC to make it from. ``alone``: a chip may have it without
    a certificate."""

    name: str
    certificate: int
    template_index: int
    nonce_index: int | None
    handle: int
    fixed: bytes = field(repr=False)
    unique: bytes = field(repr=False)
    alone: bool = False

    def area(self, template: bytes = b"", nonce: bytes = b"") -> bytes:
        """What to make the key from: *template* from NV in place of the standard one; *nonce* fills the
        unique field. Raises KeyStoreError ``factory.ek`` for a nonce that is too long."""
        if template:
            return template
        if not nonce:
            return self.fixed + self.unique
        room = 256 if self.fixed[:2] == _RSA else 32
        if len(nonce) > room:
            raise KeyStoreError("factory.ek", f"a nonce of {len(nonce)} octets for {self.name}")
        first = sized(nonce.ljust(room, b"\0"))
        return self.fixed + (first if room == 256 else first + sized(bytes(32)))


def _policy_a(digest: str) -> bytes:
    zero = bytes(hashlib.new(digest).digest_size)
    return hashlib.new(digest, hashlib.new(digest, zero + _POLICY_SECRET).digest()).digest()


def _area(kind: bytes, name: bytes, policy: bytes, parameters: bytes, *, user: bool) -> bytes:
    attributes = _FIXED | (_USER_WITH_AUTH if user else 0)
    return kind + name + attributes.to_bytes(4, "big") + sized(policy) + parameters


# PolicyB: PolicyA, or what an NV index of the TCG's says.
_POLICY_B_256: Final = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
_POLICY_B_384: Final = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_RSA_PARAMETERS: Final = _AES_CFB[128] + _NULL + (2048).to_bytes(2, "big") + bytes(4)
_P256: Final = _AES_CFB[128] + _NULL + b"\x00\x03" + _NULL
_P384: Final = _AES_CFB[256] + _NULL + b"\x00\x04" + _NULL

KINDS: Final = (
    EkKind(
        "H-2 (P-256)", 0x01C00014, 0x01C00015, None, 0x8101000A,
        _area(_ECC, _SHA256, _POLICY_B_256, _P256, user=True), sized(b"") * 2,
    ),
    EkKind(
        "L-2 (P-256)", 0x01C0000A, 0x01C0000C, 0x01C0000B, 0x8101000A,
        _area(_ECC, _SHA256, _policy_a("sha256"), _P256, user=False), sized(bytes(32)) * 2, alone=True,
    ),
    EkKind(
        "H-3 (P-384)", 0x01C00016, 0x01C00017, None, 0x81010016,
        _area(_ECC, _SHA384, _POLICY_B_384, _P384, user=True), sized(b"") * 2,
    ),
    EkKind(
        "H-1 (RSA-2048)", 0x01C00012, 0x01C00013, None, 0x81010012,
        _area(_RSA, _SHA256, _POLICY_B_256, _RSA_PARAMETERS, user=True), sized(b""),
    ),
    EkKind(
        "L-1 (RSA-2048)", 0x01C00002, 0x01C00004, 0x01C00003, 0x81010001,
        _area(_RSA, _SHA256, _policy_a("sha256"), _RSA_PARAMETERS, user=False), sized(bytes(256)),
    ),
)  # fmt: skip
"""In the order in which they are looked for: elliptic curves first, an RSA primary key takes a chip seconds.
A unit's name hangs on this order: it never changes."""


def present(indices: frozenset[int]) -> EkKind:
    """The first kind with a certificate among the defined NV *indices*; else the one to make without."""
    for kind in KINDS:
        if kind.certificate in indices:
            return kind
    return next(kind for kind in KINDS if kind.alone)
