"""What a step needs from the world, so that a test can hand in another world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509

from holdfast.host.clock import Clock
from holdfast.host.config import AcmeSettings, HookSettings, Settings
from holdfast.host.credentials import CredentialFiles
from holdfast.host.deploy import run_hook
from holdfast.host.discovery.gathering import Findings
from holdfast.host.facts import HostFacts
from holdfast.host.store import Loaded
from holdfast.host.transport import Channel, Link
from holdfast.keys.api import Key, KeyStore
from holdfast.life.record import DeviceRecord
from holdfast.wire.acme.challenges import Solver
from holdfast.wire.model import Chain, RandomBytes
from holdfast.worker.subject import Facts


class Store(Protocol):
    """Durable on return of :meth:`commit`."""

    def load(self) -> Loaded: ...

    def commit(self, record: DeviceRecord) -> None: ...

    def set_aside(self) -> str:
        """Keep the committed record under another name too; returns that name."""
        ...


Search = Callable[[float, Collection[str]], Findings]
"""Looks for registrars, listening for so many seconds, and knows which places refused us."""


class Transport(Protocol):
    """Opens exactly one connection a call. Raises TransportError, TrustError or a KeyStoreError."""

    def open(self, channel: Channel) -> Link: ...


@dataclass(frozen=True, slots=True)
class FactoryIdentity:
    """The IDevID: its key, its chain (leaf first), the serial number it names and its AKI extension value."""

    key: Key = field(repr=False)
    chain: Chain
    serial_number: str
    aki: bytes | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One effect as it happened. Times are monotonic seconds of this host, for correlation with meters."""

    name: str
    identity: str
    began: float
    ended: float
    round_trips: int
    connections: int
    result: str
    protocol: str = ""
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class Doing:
    """One effect that is about to be tried, and the seconds after which it counts as hung."""

    name: str
    identity: str
    allow: float


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything outside the rules: hardware, disk, network, clock, chance.

    ``factory`` reads the IDevID when it is first needed: reading NV costs TPM commands. ``facts`` are what
    the host can say of itself for names. ``solver`` gives what meets ACME challenges on this host, ``search``
    finds registrars that nobody configured.
    """

    settings: Settings
    clock: Clock
    store: Store
    keys: KeyStore
    factory: Callable[[], FactoryIdentity]
    manufacturer_anchors: tuple[x509.Certificate, ...]
    transport: Transport
    files: Callable[[str], CredentialFiles]
    random: RandomBytes
    facts: Facts = field(default_factory=HostFacts)
    solver: Callable[[AcmeSettings], Solver | None] = lambda _settings: None
    search: Search = lambda _seconds, _refused: Findings()
    run_hook: Callable[[HookSettings, Mapping[str, str]], None] = run_hook
    observe: Callable[[Trace], None] = lambda _trace: None
    announce: Callable[[Doing], None] = lambda _doing: None
