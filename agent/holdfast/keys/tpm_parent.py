"""The storage root key under which our keys are made, and the making of keys under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tpm2_pytss import (
    ESYS_TR,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_TEMPLATE,
    TPMS_SENSITIVE_CREATE,
    TSS2_Exception,
)

from holdfast.keys.tpm_faults import COMMAND_CODE, HANDLE, NV_DEFINED, is_code
from holdfast.keys.tpm_objects import Objects, Persistent
from holdfast.keys.tpm_templates import is_storage_parent, storage_root
from holdfast.wire.errors import KeyStoreError

Secret = Callable[[], bytes]

_MAX_AUTH: Final = 32  # the digest size of the name algorithm, TPM 2.0 Part 1 §19.6.4


@dataclass(frozen=True, slots=True)
class Made:
    """A new key: loaded as ``esys``, which the maker holds or flushes, and its wrapped form."""

    esys: Any
    private: Any
    public: Any


def secret_value(source: Secret | None) -> bytes:
    """What *source* gives, empty without one. Raises KeyStoreError(``key.auth-too-long``)."""
    value = source() if source is not None else b""
    if len(value) > _MAX_AUTH:
        raise KeyStoreError("key.auth-too-long", f"an authorisation value has at most {_MAX_AUTH} octets")
    return value


class StorageRoot:
    """The persistent storage root key at *handle*. Methods run inside :meth:`Objects.run`."""

    def __init__(self, objects: Objects, handle: int, owner_auth: Secret | None) -> None:
        self.handle = handle
        self._objects = objects
        self._owner_auth = owner_auth
        self._create_loaded = True  # until the chip says that it lacks the command

    def find(self, esapi: Any, handle: int | None = None) -> Persistent:
        """The parent at *handle* (default: ours, made from the standard template if nothing is there).

        Raises TSS2_Exception, KeyStoreError(``key.parent-unusable``).
        """
        at = self.handle if handle is None else handle
        try:
            found = self._objects.persistent(esapi, at)
        except TSS2_Exception as error:
            if not is_code(error.rc, HANDLE) or at != self.handle:
                raise
            self._make(esapi)
            found = self._objects.persistent(esapi, at)
        if not is_storage_parent(found.public):
            raise KeyStoreError("key.parent-unusable", f"the object at {at:#010x} is not a storage key")
        return found

    def make_key(self, esapi: Any, template: Any, auth: bytes) -> Made:
        """A new key from *template*, loaded. Raises TSS2_Exception, KeyStoreError."""
        parent = self.find(esapi).esys
        sensitive = TPM2B_SENSITIVE_CREATE(sensitive=TPMS_SENSITIVE_CREATE(userAuth=auth))
        made = self._by_create_loaded(esapi, parent, sensitive, template) if self._create_loaded else None
        if made is None:
            private, public, *_ = esapi.create(parent, sensitive, TPM2B_PUBLIC(publicArea=template))
            made = Made(esapi.load(parent, private, public), private, public)
        if auth:
            esapi.tr_set_auth(made.esys, auth)
        return made

    def persist(self, esapi: Any, esys: Any, handle: int) -> Any:
        """Keep the transient object *esys* at *handle*."""
        esapi.tr_set_auth(ESYS_TR.OWNER, secret_value(self._owner_auth))
        return esapi.evict_control(ESYS_TR.OWNER, esys, handle)

    def _by_create_loaded(self, esapi: Any, parent: Any, sensitive: Any, template: Any) -> Made | None:
        try:
            return Made(*esapi.create_loaded(parent, sensitive, TPM2B_TEMPLATE(template.marshal())))
        except TSS2_Exception as error:
            if not is_code(error.rc, COMMAND_CODE):
                raise
            self._create_loaded = False
            return None

    def _make(self, esapi: Any) -> None:
        esapi.tr_set_auth(ESYS_TR.OWNER, secret_value(self._owner_auth))
        public = TPM2B_PUBLIC(publicArea=storage_root())
        esys, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), public, ESYS_TR.OWNER)
        try:
            self.persist(esapi, esys, self.handle)
        except TSS2_Exception as error:
            if not is_code(error.rc, NV_DEFINED):  # else another process made the same key first
                raise
        finally:
            esapi.flush_context(esys)
