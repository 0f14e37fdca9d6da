"""Keys in a TPM 2.0: wrapped by its storage root key and kept on disk, or at persistent handles.

References: ``tpm2:blob:<identity>-<generation>`` and ``tpm2:0x81010100``. Wrapped keys take no space in the
TPM, so they are the default. Both kinds load from any store, whatever its setting for new keys.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.keys.api import KeyRef, KeySpec, Usage
from holdfast.keys.key_files import KeyFiles, file_name
from holdfast.keys.tpm_attest import TpmAttestor
from holdfast.keys.tpm_health import TpmHealth, examine
from holdfast.keys.tpm_key import TpmKey
from holdfast.keys.tpm_nv import parse_certificate, read_certificate
from holdfast.keys.tpm_objects import Objects
from holdfast.keys.tpm_parent import Secret, StorageRoot, secret_value
from holdfast.keys.tpm_persistent import PersistentKeys, handle_ref
from holdfast.keys.tpm_templates import public_key
from holdfast.keys.tpm_usage import lockout_counter
from holdfast.keys.tpm_wrapped import PREFIX, WrappedKeys
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import KeyAlgorithm

Storage = Literal["blob", "persistent"]

SRK: Final = 0x81000001
PERSISTENT_BASE: Final = 0x81010100
PERSISTENT_COUNT: Final = 16


class TpmStore:
    """A :class:`~holdfast.keys.api.KeyStore` over the TPM at *tcti*, with wrapped keys in *directory*.

    *storage* says where new keys go. Persistent keys live in [*persistent_base*, + *persistent_count*),
    shared evenly by *identities*, whose generations take turns there. *auth* gives the authorisation value
    of our keys, *owner_auth* that of the owner hierarchy, each at most 32 octets and asked for when needed.
    *slots* is how many transient keys stay loaded: with one, two processes fit a TPM that has no resource
    manager. No hardware is touched before the first use. Use it in a ``with`` block, or call :meth:`close`.
    """

    def __init__(
        self,
        tcti: str,
        directory: Path,
        *,
        srk: int = SRK,
        storage: Storage = "blob",
        persistent_base: int = PERSISTENT_BASE,
        persistent_count: int = PERSISTENT_COUNT,
        identities: tuple[str, ...] = ("ldevid",),
        auth: Secret | None = None,
        owner_auth: Secret | None = None,
        slots: int = 1,
    ) -> None:
        self._objects = Objects(tcti, slots)
        self._srk = srk
        self._storage = storage
        self._range = range(persistent_base, persistent_base + persistent_count)
        self._identities = identities
        self._owner_auth = owner_auth
        self._root = StorageRoot(self._objects, srk, owner_auth)
        self._wrapped = WrappedKeys(self._objects, self._root, KeyFiles(directory), auth)
        self._persistent = PersistentKeys(self._objects, self._root, self._range, auth)
        self._idevid: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plan(self, identity: str, generation: int) -> KeyRef:
        """Raises KeyStoreError: ``key.reference``, ``key.no-handle`` if the range has none for *identity*."""
        name = file_name(identity, generation)
        if self._storage == "blob":
            return KeyRef(PREFIX + name)
        turns = len(self._range) // max(1, len(self._identities))
        if identity not in self._identities or turns < 2:
            raise KeyStoreError("key.no-handle", f"no two persistent handles are set aside for {identity}")
        first = self._identities.index(identity) * turns
        return handle_ref(self._range[first + generation % turns])

    def generate(self, ref: KeyRef, spec: KeySpec) -> TpmKey:
        """What stood at *ref* is replaced only once the new key exists."""
        return self._home(ref).generate(ref, spec)

    def load(self, ref: KeyRef) -> TpmKey:
        """Raises KeyNotFound, KeyLocked, and KeyStoreError ``key.parent-changed`` if the TPM was cleared."""
        return self._home(ref).load(ref)

    def destroy(self, ref: KeyRef) -> None:
        self._home(ref).destroy(ref)

    def refs(self) -> frozenset[KeyRef]:
        """Wrapped keys are listed without the TPM; handles only if new keys go there."""
        wrapped = self._wrapped.refs()
        return wrapped if self._storage == "blob" else wrapped | self._persistent.refs()

    def home(self) -> str:
        """Name of the storage root key: clearing the TPM makes another. One ReadPublic a process."""

        def name(esapi: Any) -> str:
            return bytes(esapi.tr_get_name(self._root.find(esapi).esys)).hex()

        return self._objects.run("name the storage root key", name)

    def close(self) -> None:
        self._objects.close()

    def health(self) -> TpmHealth:
        """What the TPM tells for the asking. Raises KeyStoreUnavailable."""
        return self._objects.run("examine the TPM", lambda esapi: examine(esapi, self._srk))

    def parents(self) -> dict[KeyRef, bytes]:
        """The Name of the storage key that each wrapped key was made under, where its file tells."""
        return self._wrapped.parents()

    @property
    def usage(self) -> Usage:
        """Commands that this store sent to the TPM, and the time that they took."""
        return self._objects.context.counter.usage

    def lockout_counter(self) -> int | None:
        """TPM_PT_LOCKOUT_COUNTER: one command that only reads."""
        return self._objects.run("read the lockout counter", lockout_counter)

    def idevid(self, handle: int, auth: Secret | None = None) -> TpmKey:
        """The maker's key at persistent *handle*. One ReadPublic. Raises KeyNotFound, KeyStoreError."""
        key = self._persistent.at(handle, auth)
        self._idevid = handle
        return key

    def idevid_certificate(self, nv_index: int, *, handle: int | None = None) -> x509.Certificate:
        """The maker's certificate in NV, which must be that of the key at *handle*.

        *handle* defaults to the last one given to :meth:`idevid`. Raises KeyNotFound(``key.no-certificate``)
        and KeyStoreError(``key.certificate``, ``key.idevid-mismatch``).
        """
        owner = self._idevid if handle is None else handle
        if owner is None:
            raise KeyStoreError("key.idevid-mismatch", "no key was named to compare the certificate with")
        der = self._objects.run(
            f"read NV {nv_index:#010x}",
            lambda esapi: read_certificate(esapi, nv_index, secret_value(self._owner_auth)),
        )
        certificate, spki = parse_certificate(der, nv_index)
        key = public_key(self._persistent.area(owner))
        if spki != key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            raise KeyStoreError(
                "key.idevid-mismatch",
                f"the certificate in NV index {nv_index:#010x} is not for the key at {owner:#010x}",
            )
        return certificate

    def attesting(self, algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> TpmAttestor:
        """Attestation by the same TPM, over the same connection. Raises KeyStoreError ``key.unsupported``."""
        return TpmAttestor(self._objects, algorithm=algorithm, owner_auth=self._owner_auth)

    def _home(self, ref: KeyRef) -> WrappedKeys | PersistentKeys:
        return self._wrapped if ref.startswith(PREFIX) else self._persistent
