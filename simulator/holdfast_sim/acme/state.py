"""What the ACME server remembers, and how it behaves apart from faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from holdfast.wire.acme.challenges import Task
from holdfast.wire.algorithms import PublicKey
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.model import Chain, Moment
from holdfast.wire.tpm.public import TpmPublic

Probe = Callable[[Task], str | None]
"""What a validator sees where a task should show: the key authorization, or the TXT value of dns-01."""


def nowhere(_task: Task) -> str | None:
    """A network in which nothing is found."""
    return None


def _no_time() -> Moment:
    raise LocalProtocolError("sim.acme", "the world has given no clock")


@dataclass(frozen=True, slots=True)
class AcmePolicy:
    """``external``: MAC keys by key identifier, demanded from new accounts if there are any. ``kinds``: the
    challenges offered for DNS names. ``life``: of issued certificates. ``polls``: how often an order says
    *processing* before it is valid. ``attestation_anchors``: attestation CAs; ``devices``: serial numbers
    that may have a certificate by attestation, None for all. ``window``: begin and end of the suggested
    renewal window, as parts of the certificate's life."""

    external: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    profiles: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("http-01", "dns-01", "tls-alpn-01")
    life: timedelta = timedelta(days=30)
    polls: int = 0
    retry_after: int = 1
    attestation_anchors: Chain = ()
    devices: frozenset[str] | None = None
    window: tuple[float, float] = (0.6, 0.7)


@dataclass(slots=True)
class Account:
    """One account key and what it may still do."""

    url: str
    key: PublicKey
    status: str = "valid"
    contacts: tuple[str, ...] = ()
    external: str | None = None


@dataclass(slots=True)
class ChallengeState:
    kind: str
    url: str
    token: str
    status: str = "pending"
    error: Mapping[str, Any] | None = None


@dataclass(slots=True)
class AuthorizationState:
    url: str
    identifier: tuple[str, str]
    challenges: list[ChallengeState]
    status: str = "pending"


@dataclass(slots=True)
class OrderState:
    """``attested`` is the key that device-attest-01 proved: the CSR must be for it."""

    url: str
    account: str
    identifiers: tuple[tuple[str, str], ...]
    authorizations: tuple[str, ...]
    replaces: str | None = None
    profile: str | None = None
    status: str = "pending"
    polls: int = 0
    csr: x509.CertificateSigningRequest | None = field(default=None, repr=False)
    certificate: str | None = None
    error: Mapping[str, Any] | None = None
    attested: TpmPublic | None = field(default=None, repr=False)


@dataclass(slots=True)
class AcmeState:
    """Everything by URL. ``chains``: issued; ``replaced``: ARI identifiers that have a successor."""

    policy: AcmePolicy = AcmePolicy()
    probe: Probe = nowhere
    nonces: set[str] = field(default_factory=set, repr=False)
    accounts: dict[str, Account] = field(default_factory=dict)
    orders: dict[str, OrderState] = field(default_factory=dict)
    authorizations: dict[str, AuthorizationState] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    by_ari: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    revoked: dict[int, int | None] = field(default_factory=dict)
    counter: int = 0
    moment: Callable[[], Moment] = field(default=_no_time, repr=False)
