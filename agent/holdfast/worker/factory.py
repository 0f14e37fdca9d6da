"""The identity that the maker gave: in the TPM, or on a token, which need not be where our own keys live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from holdfast.host.config import Settings
from holdfast.keys.api import Key, KeyStore
from holdfast.keys.open import open_store
from holdfast.keys.pkcs11_uri import Pkcs11Uri
from holdfast.wire.brski.idevid import aki, serial_number
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import Chain
from holdfast.worker.certificates import read_certificates
from holdfast.worker.ports import FactoryIdentity

Held = Callable[[], x509.Certificate]
"""Reads the certificate that the hardware holds."""


def key_directory(settings: Settings) -> Path:
    """What key stores keep on disk stands beside the record."""
    return settings.state_directory / "keys"


@contextmanager
def makers_store(settings: Settings, keys: KeyStore) -> Iterator[KeyStore]:
    """The store with the IDevID: *keys*, the store with our own, where that is the one; else one of its own.

    No hardware is touched before the first use. The IDevID's key works only inside the block.
    """
    if settings.idevid.token is None and settings.keys.token is None:
        yield keys
        return
    token = settings.idevid.token
    directory = key_directory(settings)
    home = token.store_settings(directory) if token else settings.keys.tpm_settings(directory)
    store = open_store(home)
    try:
        yield store
    finally:
        store.close()


def factory_identity(settings: Settings, store: KeyStore) -> FactoryIdentity:
    """The IDevID in *store*, which :func:`makers_store` gave. Raises KeyStoreError, ConfigError."""
    idevid = settings.idevid
    key, held = _on_token(store, idevid.token.uri) if idevid.token else _in_tpm(settings, store)
    leaf = read_certificates(idevid.certificate_file)[0] if idevid.certificate_file is not None else held()
    rest: Chain = read_certificates(idevid.chain_file) if idevid.chain_file is not None else ()
    chain = (leaf, *(c for c in rest if c != leaf))
    return FactoryIdentity(key, chain, serial_number(leaf), aki(leaf))


def _on_token(store: KeyStore, uri: Pkcs11Uri) -> tuple[Key, Held]:
    from holdfast.keys.pkcs11 import Pkcs11Store  # noqa: PLC0415 - the extra "pkcs11" need not be there

    if not isinstance(store, Pkcs11Store):
        raise KeyStoreError("key.idevid-home", "the IDevID is on a token, and this store is none")
    return store.idevid(uri), lambda: store.idevid_certificate(uri)


def _in_tpm(settings: Settings, store: KeyStore) -> tuple[Key, Held]:
    from holdfast.keys.tpm import TpmStore  # noqa: PLC0415 - nor the extra "tpm"

    if not isinstance(store, TpmStore):
        raise KeyStoreError("key.idevid-home", "the IDevID is in the TPM, and this store is not the TPM's")
    idevid = settings.idevid
    return store.idevid(idevid.handle, idevid.auth), lambda: store.idevid_certificate(idevid.nv_index)
