"""Keys at persistent handles: nothing to load, but each takes some of the TPM's few kilobytes of storage."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from tpm2_pytss import TSS2_Exception

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.tpm_faults import HANDLE, NV_DEFINED, is_code
from holdfast.keys.tpm_key import Place, TpmKey
from holdfast.keys.tpm_objects import Objects, handles
from holdfast.keys.tpm_parent import Secret, StorageRoot, secret_value
from holdfast.keys.tpm_templates import signing_key
from holdfast.wire.errors import KeyStoreError

_REF: Final = re.compile(r"tpm2:0x81[0-9a-f]{6}")


def handle_ref(handle: int) -> KeyRef:
    """Raises KeyStoreError(``key.reference``) if *handle* is not a persistent one."""
    return _checked(f"tpm2:{handle:#010x}")


def _checked(ref: str) -> KeyRef:
    if not _REF.fullmatch(ref):
        raise KeyStoreError("key.reference", f"{ref[:80]!r} is no persistent handle")
    return KeyRef(ref)


def _handle(ref: KeyRef) -> int:
    return int(_checked(ref).removeprefix("tpm2:"), 16)


class PersistentKeys:
    """The part of a TPM store behind ``tpm2:0x81......`` references. New keys go into *own* only."""

    def __init__(self, objects: Objects, root: StorageRoot, own: range, auth: Secret | None) -> None:
        self._objects = objects
        self._root = root
        self._own = own
        self._auth = auth

    def generate(self, ref: KeyRef, spec: KeySpec) -> TpmKey:
        """What stood at *ref* is removed only once the new key exists."""
        handle, template, auth = self._ours(ref), signing_key(spec), secret_value(self._auth)

        def make(esapi: Any) -> None:
            self._objects.make_place(esapi)
            made = self._root.make_key(esapi, template, auth)
            try:
                self._replace(esapi, made.esys, handle)
            finally:
                esapi.flush_context(made.esys)

        self._objects.run("make a key", make)
        return self.at(handle, self._auth)

    def load(self, ref: KeyRef) -> TpmKey:
        return self.at(_handle(ref), self._auth)

    def at(self, handle: int, auth: Secret | None) -> TpmKey:
        """The key at *handle*, ours or not; *auth* gives its authorisation value. One ReadPublic."""

        def locate(esapi: Any) -> Any:
            esys = self._objects.persistent(esapi, handle).esys
            if auth is not None:
                esapi.tr_set_auth(esys, secret_value(auth))
            return esys

        ref = handle_ref(handle)
        area = self.area(handle)
        place = Place(locate, functools.partial(self._objects.forget_persistent, handle))
        return TpmKey(ref, self._objects, place, area)

    def area(self, handle: int) -> Any:
        """The public area of the object at *handle*. Raises KeyNotFound."""
        return self._objects.run(f"read {handle:#010x}", lambda e: self._objects.persistent(e, handle)).public

    def destroy(self, ref: KeyRef) -> None:
        handle = self._ours(ref)
        self._objects.run("remove a key", lambda esapi: self._remove(esapi, handle))

    def refs(self) -> frozenset[KeyRef]:
        found = self._objects.run("list keys", lambda e: handles(e, self._own.start, len(self._own)))
        return frozenset(map(handle_ref, found))

    def _ours(self, ref: KeyRef) -> int:
        """Nothing outside our range is ever replaced or removed: there stand the SRK and the IDevID."""
        handle = _handle(ref)
        if handle not in self._own:
            raise KeyStoreError("key.not-ours", f"{ref} is not among the agent's own handles")
        return handle

    def _replace(self, esapi: Any, esys: Any, handle: int) -> None:
        try:
            self._root.persist(esapi, esys, handle)
        except TSS2_Exception as error:
            if not is_code(error.rc, NV_DEFINED):
                raise
            self._remove(esapi, handle)
            self._root.persist(esapi, esys, handle)

    def _remove(self, esapi: Any, handle: int) -> None:
        self._objects.forget_persistent(handle)
        try:
            esys = self._objects.persistent(esapi, handle).esys
        except TSS2_Exception as error:
            if is_code(error.rc, HANDLE):
                return
            raise
        self._root.persist(esapi, esys, handle)  # EvictControl on a persistent object removes it
        self._objects.forget_persistent(handle)
