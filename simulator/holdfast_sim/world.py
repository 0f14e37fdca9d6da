"""Everything that the simulated servers know: who owns what, what was issued, what was said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.est.csrattrs import Style
from holdfast.wire.model import ClockState, CsrTemplate, KeyAlgorithm, Moment, RandomBytes

from . import ca
from .acme.state import AcmeState
from .ca import Authority, Credential, Validity
from .cmc_desk import CmcDesk, CmcPolicy
from .cmp_desk import CmpDesk, CmpPolicy
from .domain import INFRASTRUCTURE_LIFE, Domain, general_names
from .manufacturer import Manufacturer
from .scep_authority import ScepDesk, ScepPolicy

DEFAULT_LIFE = timedelta(days=90)
MAX_RECORDS = 10_000  # a simulator that runs for weeks stays small


@dataclass(frozen=True, slots=True)
class EstPolicy:
    """How the EST server behaves, apart from faults.

    ``template``: the answer to csrattrs, written in ``style``; None answers 204, ``"absent"`` 404.
    ``life``: of issued certificates, None for 9999. ``labels``: path segments that exist beside the
    unlabelled service. ``polls``: how often each request is answered with 202 and ``retry_after`` seconds
    before it is granted; another CSR starts anew (RFC 7030 §4.2.3). ``scheme`` and ``users``: HTTP
    authentication for clients without a certificate, or for everyone if ``users_only``;
    ``algorithms``: of Digest, best first (RFC 7616 §3.7), MD5 for clients that know nothing else.
    ``renew_expired``: a certificate of ours that has ended still names its device. ``usages``: the extended
    key usages of what is issued; devices that serve need the server's, too.
    """

    life: timedelta | None = DEFAULT_LIFE
    template: CsrTemplate | Literal["absent"] | None = None
    style: Style = "9908"
    labels: frozenset[str] = frozenset()
    polls: int = 0
    retry_after: int = 1
    scheme: Literal["basic", "digest"] | None = None
    algorithms: tuple[str, ...] = ("SHA-256", "MD5")
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    users_only: bool = False
    renew_expired: bool = False
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True, slots=True)
class VoucherPolicy:
    """How the MASA behaves. ``pin``: which certificate of the registrar's chain becomes the pinned one.

    ``open_ledger``: a device that the ledger does not name is taken as sold to whoever asks first.
    """

    pin: Literal["root", "issuing", "registrar"] = "root"
    open_ledger: bool = False
    life: timedelta = timedelta(minutes=20)


@dataclass(frozen=True, slots=True)
class StandingPolicy:
    """How the domain tells of revoked certificates.

    ``url``: ``http://host[:port]`` of the plain server, written into what is issued; "" writes nothing.
    ``life``: of an answer. ``delegate``: a responder with a certificate of its own answers for the CA.
    """

    url: str = ""
    ocsp: bool = True
    crl: bool = True
    life: timedelta = timedelta(days=1)
    delegate: bool = False
    algorithm: KeyAlgorithm = KeyAlgorithm.P256


@dataclass(frozen=True, slots=True)
class IssuedRecord:
    """One certificate that the domain's CA handed out. ``client`` is the subject that asked."""

    certificate: x509.Certificate
    operation: str
    client: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One voucher that the MASA issued (RFC 8995 §5.8.1)."""

    serial_number: str
    at: datetime
    domain_id: bytes
    nonce: str | None
    assertion: str


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Telemetry from a device: ``operation`` is ``voucher_status`` or ``enrollstatus``."""

    operation: str
    client: x509.Certificate
    status: bool
    reason: str
    context: Mapping[str, object]
    at: datetime


@dataclass(slots=True)
class World:
    """The state behind all servers. Time and chance come from outside.

    ``ledger``: serial number to owner (the hex domain identifier), or None for a device not yet claimed.
    ``idevids``: SHA-256 (hex) of the one IDevID certificate of a serial number, where a manifest told.
    ``revoked``: serial numbers of certificates that the domain no longer accepts. ``pending``: how often
    a request that waits was made, by a digest of client and CSR.
    """

    now: Callable[[], datetime]
    random: RandomBytes = field(repr=False)
    manufacturer: Manufacturer
    domain: Domain
    impostor: Domain = field(repr=False)
    masa_tls: Credential = field(repr=False)
    est: EstPolicy = EstPolicy()
    vouchers: VoucherPolicy = VoucherPolicy()
    standing: StandingPolicy = StandingPolicy()
    ledger: dict[str, str | None] = field(default_factory=dict)
    idevids: dict[str, str] = field(default_factory=dict)
    issued: list[IssuedRecord] = field(default_factory=list)
    audit: list[AuditEvent] = field(default_factory=list)
    reports: list[StatusReport] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)
    pending: dict[bytes, int] = field(default_factory=dict, repr=False)
    nonces: dict[str, int] = field(default_factory=dict, repr=False)
    scep: ScepPolicy = field(default_factory=ScepPolicy)
    scep_desk: ScepDesk = field(default_factory=ScepDesk, repr=False)
    cmp: CmpPolicy = field(default_factory=CmpPolicy)
    cmp_desk: CmpDesk = field(default_factory=CmpDesk, repr=False)
    cmc: CmcPolicy = field(default_factory=CmcPolicy)
    cmc_desk: CmcDesk = field(default_factory=CmcDesk, repr=False)
    acme: AcmeState = field(default_factory=AcmeState)

    @classmethod
    def create(
        cls,
        now: Callable[[], datetime],
        random: RandomBytes,
        *,
        manufacturer: Manufacturer | None = None,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        algorithm: KeyAlgorithm = KeyAlgorithm.P256,
        est: EstPolicy | None = None,
        vouchers: VoucherPolicy | None = None,
    ) -> World:
        """A new owner and, unless one is given, a new manufacturer. *impostor* is a domain nobody chose."""
        at = now()
        if manufacturer is None:
            manufacturer = Manufacturer.create(at, random, algorithm)
        domain = Domain.create("Simulated Owner", at, random, names=names, algorithm=algorithm)
        impostor = Domain.create("Simulated Impostor", at, random, names=names, algorithm=algorithm)
        world = cls(
            now,
            random,
            manufacturer,
            domain,
            impostor,
            _web_server(names, at, random),
            est or EstPolicy(),
            vouchers or VoucherPolicy(),
        )
        world.acme.moment = world.moment
        return world

    def moment(self) -> Moment:
        """Now, believed: servers have clocks."""
        now = self.now()
        return Moment(now, now, ClockState.TRUSTED)

    def sell(self, serial_number: str, owner: str | None = None) -> None:
        """Enter a device into the ledger. Without an owner the first domain that asks gets it."""
        self.ledger[serial_number] = owner

    def roll_over(self) -> None:
        """Replace root and issuing CA of the domain; what they signed stays good."""
        self.domain = self.domain.rolled_over(self.now(), self.random)

    def note_issued(self, certificate: x509.Certificate, operation: str, client: str) -> None:
        self.issued.append(IssuedRecord(certificate, operation, client, self.now()))
        del self.issued[:-MAX_RECORDS]

    def note_report(self, report: StatusReport) -> None:
        self.reports.append(report)
        del self.reports[:-MAX_RECORDS]

    def note_audit(self, event: AuditEvent) -> None:
        self.audit.append(event)
        del self.audit[:-MAX_RECORDS]


def _web_server(names: Sequence[str], at: datetime, random: RandomBytes) -> Credential:
    """The MASA's TLS certificate, from a web CA that has nothing to do with owner or manufacturer."""
    life = Validity.starting(at, INFRASTRUCTURE_LIFE)
    root = Authority.root(ca.name("Simulated Web CA"), life, random, KeyAlgorithm.P256)
    extensions = ca.end_entity(ExtendedKeyUsageOID.SERVER_AUTH, san=general_names(names))
    return root.credential_for(ca.name("Simulated MASA Server"), life, extensions, KeyAlgorithm.P256)
