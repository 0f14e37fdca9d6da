"""Keys by reference (ARCHITECTURE §3). A key's private half never leaves its hardware.

References are planned before keys are made: the record names the reference durably first, then
:meth:`KeyStore.generate` makes the key exactly there, replacing whatever an interrupted attempt left.
So a power cut can leave a planned reference without a key, never a key without a reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NewType, Protocol, runtime_checkable

from cryptography import x509

from holdfast.wire.model import KeyAlgorithm, SigningKey

if TYPE_CHECKING:
    from cryptography import x509

KeyRef = NewType("KeyRef", str)
"""Secret-free URI of a key: ``tpm2:0x81020000`` (persistent), ``tpm2:blob:ldevid-3`` (wrapped, on disk),
``pkcs11:object=holdfast-ldevid-3;id=%68...;type=private`` (on a token)."""

NO_KEY: Final = KeyRef("")


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What kind of key to make. ``decrypt`` asks for an RSA key that also decrypts (SCEP)."""

    algorithm: KeyAlgorithm = KeyAlgorithm.P256
    decrypt: bool = False


class Key(Protocol):
    """One private key in its hardware."""

    @property
    def ref(self) -> KeyRef: ...

    def signer(self) -> SigningKey:
        """A ``cryptography`` private key whose operations run in the hardware; export always raises."""
        ...

    def reference_pem(self) -> bytes | None:
        """What another program loads instead of the key (a TSS2 PEM), or None if there is none."""
        ...


@runtime_checkable
class HasUri(Protocol):
    """A :class:`Key` that other programs reach by a URI of its own (RFC 7512), which is no secret."""

    @property
    def uri(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process asked of its hardware so far."""

    commands: int = 0
    seconds: float = 0.0


@runtime_checkable
class Metered(Protocol):
    """A key store that counts, and that knows how many failed authorisations its hardware remembers."""

    @property
    def usage(self) -> Usage: ...

    def lockout_counter(self) -> int | None:
        """None where the hardware does not say. Raises KeyStoreError. It only reads."""
        ...


@runtime_checkable
class Homed(Protocol):
    """A store that can tell its hardware from other hardware, and from the same after it was cleared."""

    def home(self) -> str:
        """A name that is another one once the keys are lost. Raises KeyStoreError."""
        ...


class KeyStore(Protocol):
    """A home of keys. Raises only :class:`~holdfast.wire.errors.KeyStoreError` and its kinds."""

    def plan(self, identity: str, generation: int) -> KeyRef:
        """Where the key of that generation will live. Pure: touches no hardware."""
        ...

    def generate(self, ref: KeyRef, spec: KeySpec) -> Key:
        """Make a key at *ref*, replacing what is there."""
        ...

    def load(self, ref: KeyRef) -> Key:
        """Raises :class:`~holdfast.wire.errors.KeyNotFound`."""
        ...

    def destroy(self, ref: KeyRef) -> None:
        """Remove the key at *ref*; no error if there is none."""
        ...

    def refs(self) -> frozenset[KeyRef]:
        """Every key that this store holds for the agent (never the IDevID)."""
        ...

    def close(self) -> None:
        """Flush every transient object and end the connection to the hardware."""
        ...


@runtime_checkable
class HoldsCertificates(Protocol):
    """A :class:`KeyStore` in which a certificate can stand beside its key, as users of tokens expect it."""

    def hold_certificate(self, ref: KeyRef, certificate: x509.Certificate) -> None:
        """Make *certificate* the one beside the key at *ref*; it goes with the key. Can be repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """A TPM's statement about one of its keys: TPMS_ATTEST, TPMT_SIGNATURE, TPMT_PUBLIC of the key."""

    statement: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    public: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The key by which a TPM is known to its maker: TPMT_PUBLIC, certificate and its issuers (DER) if
    there."""

    public: bytes = field(repr=False)
    certificate: bytes | None = field(repr=False)
    issuers: bytes = field(repr=False)


@runtime_checkable
class Attests(Protocol):
    """A :class:`KeyStore` whose hardware attests keys."""

    def attesting(self, algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> Attesting:
        """Attestation by a key of that kind: P-256 or RSA-2048."""
        ...


class Attesting(Protocol):
    """What a key store can do whose hardware states things about its keys."""

    @property
    def algorithm(self) -> KeyAlgorithm:
        """The kind of the attestation key."""
        ...

    def attestation_public(self) -> bytes:
        """TPMT_PUBLIC of the attestation key, which is made if need be."""
        ...

    def certify(self, key: Key, qualifying: bytes) -> Evidence:
        """The attestation key's statement that *key* lives beside it, with *qualifying* data."""
        ...

    def endorsement_key(self) -> EndorsementKey: ...

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """The secret that a CA sealed for this very hardware and attestation key."""
        ...
