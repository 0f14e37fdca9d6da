"""The key store of the simulated gateway: keys in memory, with what can befall a TPM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable
from holdfast.wire.model import KeyAlgorithm, SigningKey

from .power import Fuse


@dataclass(frozen=True, slots=True)
class SoftKey:
    """One key. ``owner`` counts how often the TPM had been cleared when it was made."""

    ref: KeyRef
    key: SigningKey = field(repr=False)
    owner: int = 0

    def signer(self) -> SigningKey:
        return self.key

    def reference_pem(self) -> bytes | None:
        return f"key {self.ref}\n".encode()


class SoftTpm:
    """Implements ``KeyStore`` and ``Homed`` of ``holdfast.keys.api``; at every call the power may fail."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self._owner = 0
        self.keys: dict[KeyRef, SoftKey] = {}
        self.mood: Literal["well", "absent", "locked"] = "well"

    def clear(self) -> None:
        """The files of wrapped keys stay, but no key can be loaded from them any more."""
        self._owner += 1
        if self.mood == "locked":
            self.mood = "well"

    def usable(self, ref: KeyRef) -> bool:
        """Whether there is a key that the TPM would take back, whatever its mood."""
        key = self.keys.get(ref)
        return key is not None and key.owner == self._owner

    def home(self) -> str:
        self.answer("home")
        return f"soft:{self._owner}"

    def plan(self, identity: str, generation: int) -> KeyRef:
        return KeyRef(f"soft:{identity}-{generation}")

    def generate(self, ref: KeyRef, spec: KeySpec) -> SoftKey:
        self.answer("generate")
        made = SoftKey(ref, private_key(spec.algorithm), self._owner)
        self.keys[ref] = made
        self._fuse.point("generated")
        return made

    def load(self, ref: KeyRef) -> SoftKey:
        self.answer("load")
        key = self.keys.get(ref)
        if key is None:
            raise KeyNotFound("key.not-found", ref)
        if key.owner != self._owner:
            raise KeyStoreError("key.parent-changed", f"{ref}: the TPM was cleared")
        return key

    def destroy(self, ref: KeyRef) -> None:
        self._fuse.point("destroy")
        if self.mood == "absent":
            raise KeyStoreUnavailable("key.unavailable", "the TPM does not answer")
        self.keys.pop(ref, None)
        self._fuse.point("destroyed")

    def refs(self) -> frozenset[KeyRef]:
        return frozenset(self.keys)

    def close(self) -> None:
        """Nothing to flush."""

    def answer(self, what: str) -> None:
        """Raises what the TPM raises in its present mood."""
        self._fuse.point(what)
        if self.mood == "absent":
            raise KeyStoreUnavailable("key.unavailable", "the TPM does not answer")
        if self.mood == "locked":
            raise KeyLocked("key.lockout", "the TPM is in lockout")


def private_key(algorithm: KeyAlgorithm) -> SigningKey:
    """A new key, made in software."""
    match algorithm:
        case KeyAlgorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.RSA2048:
            return rsa.generate_private_key(65537, 2048)
        case KeyAlgorithm.RSA3072:
            return rsa.generate_private_key(65537, 3072)
