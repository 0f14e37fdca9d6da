"""Keys that live on disk, wrapped by the storage root key, and in the TPM only while they are used."""

from __future__ import annotations

import functools
from typing import Any, Final

from tpm2_pytss import TSS2_Exception

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.key_files import KeyFiles, checked
from holdfast.keys.tpm_faults import INTEGRITY, is_code
from holdfast.keys.tpm_key import Place, TpmKey
from holdfast.keys.tpm_objects import Objects, object_name
from holdfast.keys.tpm_parent import Secret, StorageRoot, secret_value
from holdfast.keys.tpm_templates import signing_key
from holdfast.keys.tss2_pem import MAX_PEM, WrappedKey, decode, encode
from holdfast.wire.errors import KeyLocked, KeyStoreError

PREFIX: Final = "tpm2:blob:"


class WrappedKeys:
    """The part of a TPM store behind ``tpm2:blob:`` references."""

    def __init__(self, objects: Objects, root: StorageRoot, files: KeyFiles, auth: Secret | None) -> None:
        self._objects = objects
        self._root = root
        self._files = files
        self._auth = auth
        objects.known_names = self._all_names

    def generate(self, ref: KeyRef, spec: KeySpec) -> TpmKey:
        """What stood at *ref* is replaced only once the new key is durable."""
        name, template, auth = _file(ref), signing_key(spec), secret_value(self._auth)

        def make(esapi: Any) -> WrappedKey:
            self._objects.flush(esapi, ref)
            self._objects.make_place(esapi)
            made = self._root.make_key(esapi, template, auth)
            self._objects.hold(ref, made.esys, object_name(made.public.publicArea))
            parent = bytes(esapi.tr_get_name(self._root.find(esapi).esys))
            return WrappedKey(made.private, made.public, not auth, self._root.handle, parent)

        wrapped = self._objects.run("make a key", make)
        pem = encode(wrapped)
        try:
            self._files.write(name, pem)
        except KeyStoreError:
            self._objects.run("flush a key", lambda esapi: self._objects.flush(esapi, ref))
            raise
        return self._key(ref, wrapped, pem)

    def load(self, ref: KeyRef) -> TpmKey:
        """Checks that the key still is of this TPM; it is loaded now only if its file does not tell."""
        pem = self._files.read(_file(ref), MAX_PEM)
        wrapped = decode(pem)
        if not wrapped.empty_auth and self._auth is None:
            raise KeyLocked("key.auth-missing", f"{ref} has an authorisation value, and none is configured")
        key = self._key(ref, wrapped, pem)
        check = self._same_parent if wrapped.parent_name else functools.partial(self._locate, ref)
        self._objects.run("find a key's parent", functools.partial(check, wrapped))
        return key

    def destroy(self, ref: KeyRef) -> None:
        """Remove the file first: without it, what may still be loaded has no future.

        Where there is no file, its making may have been cut short. No resource manager then means that the
        half-made key may still be in the TPM.
        """
        name = _file(ref)
        loaded = self._names((name,))
        self._files.remove(name)
        if loaded:
            self._objects.run("flush a key", functools.partial(self._expel, ref, loaded))
        elif not self._objects.has_resource_manager:
            self._objects.run("flush a half-made key", self._expel_half_made)

    def refs(self) -> frozenset[KeyRef]:
        return frozenset(KeyRef(PREFIX + name) for name in self._files.names())

    def parents(self) -> dict[KeyRef, bytes]:
        """The parent's Name in each key's file; files that cannot be read or do not tell are left out."""
        found = {}
        for ref in self.refs():
            try:
                found[ref] = decode(self._files.read(_file(ref), MAX_PEM)).parent_name
            except KeyStoreError:
                continue
        return {ref: name for ref, name in found.items() if name}

    def _key(self, ref: KeyRef, wrapped: WrappedKey, pem: bytes) -> TpmKey:
        area = wrapped.public.publicArea
        place = Place(
            functools.partial(self._locate, ref, wrapped), functools.partial(self._objects.forget, ref)
        )
        return TpmKey(ref, self._objects, place, area, pem)

    def _locate(self, ref: KeyRef, wrapped: WrappedKey, esapi: Any) -> Any:
        def bring(esapi: Any) -> Any:
            parent = self._root.find(esapi, wrapped.parent).esys
            try:
                esys = esapi.load(parent, wrapped.private, wrapped.public)
            except TSS2_Exception as error:
                if is_code(error.rc, INTEGRITY):
                    raise _not_taken_back(ref, wrapped) from error
                raise
            if not wrapped.empty_auth:
                esapi.tr_set_auth(esys, secret_value(self._auth))
            return esys

        return self._objects.transient(esapi, ref, object_name(wrapped.public.publicArea), bring)

    def _same_parent(self, wrapped: WrappedKey, esapi: Any) -> None:
        parent = self._root.find(esapi, wrapped.parent)
        if bytes(esapi.tr_get_name(parent.esys)) != wrapped.parent_name:
            raise KeyStoreError(
                "key.parent-changed",
                f"the storage root key at {wrapped.parent:#010x} is not the one that made this key: "
                "the TPM was cleared, and its keys are lost",
            )

    def _expel(self, ref: KeyRef, names: frozenset[bytes], esapi: Any) -> None:
        self._objects.flush(esapi, ref)
        if not self._objects.has_resource_manager:
            self._objects.reclaim(esapi, names)

    def _expel_half_made(self, esapi: Any) -> None:
        self._objects.reclaim_below(esapi, self._root.find(esapi).esys, self._all_names())

    def _all_names(self) -> frozenset[bytes]:
        return self._names(self._files.names())

    def _names(self, files: frozenset[str] | tuple[str, ...]) -> frozenset[bytes]:
        """TPM Names of the keys in *files*; a file that cannot be read has none."""
        names = set()
        for file in files:
            try:
                names.add(object_name(decode(self._files.read(file, MAX_PEM)).public.publicArea))
            except KeyStoreError:
                continue
        return frozenset(names)


def _not_taken_back(ref: KeyRef, wrapped: WrappedKey) -> KeyStoreError:
    if wrapped.parent_name:  # compared when the key was opened: the parent is the right one
        return KeyStoreError("key.corrupt", f"the file of {ref} is damaged: the TPM refuses its integrity")
    return KeyStoreError(
        "key.parent-changed",
        f"the TPM does not take {ref} back: it was cleared, or the key is of another TPM",
    )


def _file(ref: KeyRef) -> str:
    return checked(ref.removeprefix(PREFIX))
