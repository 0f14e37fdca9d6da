"""A key store in memory, for lives in which the hardware is not the question."""

from __future__ import annotations

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast.wire.model import SigningKey
from years.keys import private_key


class SoftKey:
    """One key; ``signer`` gives it away, which no real store can."""

    def __init__(self, ref: KeyRef, key: SigningKey) -> None:
        self.ref = ref
        self._key = key
        self.lost = False

    def signer(self) -> SigningKey:
        return self._key

    def reference_pem(self) -> bytes | None:
        return None


class SoftKeys:
    """Implements ``holdfast.keys.api.KeyStore``. ``made`` counts generated keys."""

    def __init__(self) -> None:
        self.keys: dict[KeyRef, SoftKey] = {}
        self.made = 0
        self.hardware = "chip-1"

    def home(self) -> str:
        return self.hardware

    def clear(self) -> None:
        """What clearing a TPM does: the references stay on disk, and nothing can use them any more."""
        self.hardware += "'"
        for key in self.keys.values():
            key.lost = True

    def plan(self, identity: str, generation: int) -> KeyRef:
        return KeyRef(f"soft:{identity}-{generation}")

    def generate(self, ref: KeyRef, spec: KeySpec) -> SoftKey:
        self.made += 1
        self.keys[ref] = SoftKey(ref, private_key(spec.algorithm))
        return self.keys[ref]

    def load(self, ref: KeyRef) -> SoftKey:
        try:
            key = self.keys[ref]
        except KeyError:
            raise KeyNotFound("key.not-found", ref) from None
        if key.lost:
            raise KeyStoreError("key.parent-changed", f"{ref} is of other hardware")
        return key

    def destroy(self, ref: KeyRef) -> None:
        self.keys.pop(ref, None)

    def refs(self) -> frozenset[KeyRef]:
        return frozenset(self.keys)

    def close(self) -> None:
        """Nothing to flush."""
