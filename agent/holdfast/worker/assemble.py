"""The real world for a step: TPM, disk, network, clock, from the settings."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cryptography import x509

from holdfast.host.clock import SystemClock
from holdfast.host.config import Settings
from holdfast.host.credentials import CredentialFiles
from holdfast.host.lock import StateLock
from holdfast.host.store import StateStore
from holdfast.host.transport import Limits, TlsTransport
from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tpm import TpmStore
from holdfast.wire.brski.idevid import aki, serial_number
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain
from holdfast.worker.ports import Environment, FactoryIdentity, Trace


def key_settings(settings: Settings) -> TpmSettings:
    """The key store of this device; wrapped keys stand beside the record."""
    return settings.keys.tpm_settings(settings.state_directory / "keys")


def clock_of(settings: Settings) -> SystemClock:
    """The host's clock, believed as far as the settings say."""
    return SystemClock(policy=settings.clock)


@contextmanager
def environment(
    settings: Settings, observe: Callable[[Trace], None] = lambda _trace: None
) -> Iterator[Environment]:
    """Lock the state, open the key store, and close both at the end, whatever happens.

    Raises StateError (``state.locked``), KeyStoreError or ConfigError.
    """
    with StateLock(settings.state_directory):
        keys = open_store(key_settings(settings))
        try:
            yield _environment(settings, keys, observe)
        finally:
            keys.close()


def _environment(settings: Settings, keys: TpmStore, observe: Callable[[Trace], None]) -> Environment:
    @cache
    def factory() -> FactoryIdentity:
        return factory_identity(settings, keys)

    def files(name: str) -> CredentialFiles:
        identity = next(i for i in settings.identities if i.name == name)
        return CredentialFiles(identity.deploy_directory or settings.state_directory / "identities", name)

    limits = settings.limits
    return Environment(
        settings=settings,
        clock=clock_of(settings),
        store=StateStore(settings.state_directory),
        keys=keys,
        factory=factory,
        manufacturer_anchors=read_certificates(settings.manufacturer.anchors),
        transport=TlsTransport(
            Limits(
                connect=limits.connect_seconds,
                read=limits.read_seconds,
                total=limits.total_seconds,
                header_bytes=limits.header_bytes,
                body_bytes=limits.body_bytes,
            ),
            settings.proxy,
        ),
        files=files,
        random=secrets.token_bytes,
        observe=observe,
    )


def factory_identity(settings: Settings, keys: TpmStore) -> FactoryIdentity:
    """The maker's key and certificate. Raises KeyStoreError, ConfigError."""
    idevid = settings.idevid
    key = keys.idevid(idevid.handle, idevid.auth)
    leaf = (
        read_certificates(idevid.certificate_file)[0]
        if idevid.certificate_file is not None
        else keys.idevid_certificate(idevid.nv_index)
    )
    rest: Chain = read_certificates(idevid.chain_file) if idevid.chain_file is not None else ()
    chain = (leaf, *(c for c in rest if c != leaf))
    return FactoryIdentity(key, chain, serial_number(leaf), aki(leaf))


def read_certificates(path: Path) -> Chain:
    """The certificates of a PEM file. Raises ConfigError that names the file."""
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError("config.certificates", f"{path}: {error}") from error
