"""The real world for a step: key hardware, disk, network, clock, from the settings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

from holdfast.host.acme.ways import solvers
from holdfast.host.clock import BUILD_TIME, SystemClock
from holdfast.host.config import IdentitySettings, Settings
from holdfast.host.config_secrets import secret_from
from holdfast.host.credentials import CredentialFiles
from holdfast.host.discovery.gathering import Findings
from holdfast.host.facts import HostFacts
from holdfast.host.lock import StateLock
from holdfast.host.store import StateStore
from holdfast.host.transport import Limits, TlsTransport
from holdfast.keys.api import KeyStore
from holdfast.keys.open import Pkcs11Settings, TpmSettings, open_store
from holdfast.worker.certificates import read_certificates
from holdfast.worker.factory import factory_identity, key_directory, makers_store
from holdfast.worker.ports import Doing, Environment, FactoryIdentity, Trace


def key_settings(settings: Settings) -> TpmSettings | Pkcs11Settings:
    """The key store of this device; what it keeps on disk stands beside the record."""
    return settings.keys.store_settings(key_directory(settings))


def clock_of(settings: Settings) -> SystemClock:
    """The host's clock, believed as far as the settings say."""
    return SystemClock(policy=settings.clock)


def credential_files(settings: Settings, identity: IdentitySettings) -> CredentialFiles:
    """Where other programs find the files of *identity*."""
    return CredentialFiles(
        identity.deploy_directory or settings.state_directory / "identities", identity.name
    )


@contextmanager
def environment(
    settings: Settings,
    observe: Callable[[Trace], None] = lambda _trace: None,
    announce: Callable[[Doing], None] = lambda _doing: None,
) -> Iterator[Environment]:
    """Lock the state, open the key store, and close both at the end, whatever happens.

    Raises StateError (``state.locked``), KeyStoreError or ConfigError.
    """
    with StateLock(settings.state_directory):
        keys = open_store(key_settings(settings))
        try:
            with makers_store(settings, keys) as maker, ExitStack() as ways:
                env = _environment(settings, keys, maker)
                solver = solvers(lambda: env.clock.moment(BUILD_TIME), env.random, ways)
                yield replace(env, solver=solver, observe=observe, announce=announce)
        finally:
            keys.close()


def _environment(settings: Settings, keys: KeyStore, maker: KeyStore) -> Environment:
    @cache
    def factory() -> FactoryIdentity:
        return factory_identity(settings, maker)

    def files(name: str) -> CredentialFiles:
        return credential_files(settings, next(i for i in settings.identities if i.name == name))

    def find(seconds: float, refused: Collection[str]) -> Findings:
        from holdfast.host.discovery.search import World, search  # noqa: PLC0415 - most steps seek nobody

        return search(settings, seconds, refused, World(secrets.token_bytes, time.monotonic))

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
            proxy_credentials=secret_from(settings.proxy_credentials),
        ),
        files=files,
        random=secrets.token_bytes,
        facts=HostFacts(settings.interface),
        search=find,
    )
