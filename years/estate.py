"""The owner's side: servers with their faults, CAs that are replaced in the course of years, the network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.host.transport import Channel
from holdfast.wire.acme.challenges import HTTP_01
from holdfast.wire.errors import TransportError, TrustError
from holdfast.wire.est.session import EstLimits
from holdfast.wire.model import HttpRequest, HttpResponse
from holdfast_sim import ca
from holdfast_sim.acme.state import AcmePolicy
from holdfast_sim.ca import Authority, Credential, Validity
from holdfast_sim.cmc_desk import CmcPolicy
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.domain import CMC_RA, Domain
from holdfast_sim.faults import (
    BRSKI,
    MASA,
    STANDING,
    Fault,
    FaultPlan,
)
from holdfast_sim.link import InProcessLink, InProcessTransport
from holdfast_sim.scep_authority import ScepPolicy
from holdfast_sim.site import Server, Site
from holdfast_sim.transcript import Entry, Transcript
from holdfast_sim.world import EstPolicy, StandingPolicy, World

from .appointments import Town
from .clocks import Time
from .house import IN_ANNEX, REGISTRARS, House
from .power import Fuse

SERIAL: Final = "HF-0001"
_PLAIN: Final = ("annex.example", 8080)
_STATUS: Final = "http://status.example"

_LIES: Final = frozenset(
    {"swap-certificate", "key-mismatch", "foreign-ca", "foreign-signer", "device-signer"}
)
"""Faults by which a server shows that it is not to be trusted, where a certificate is asked for."""

_ELSEWHERE: Final = BRSKI | MASA | STANDING

_ENROLLS: Final = (
    "/simpleenroll",
    "/simplereenroll",
    "/.well-known/cmp",
    "operation=PKIOperation",
    "/cmc",
    "/acme/new-order",
    "/acme/finalize",
)

LONGEST_WAIT: Final = EstLimits().longest_wait


@dataclass(frozen=True, slots=True)
class Policies:
    """How the servers behave, each for its protocol."""

    est: EstPolicy
    cmp: CmpPolicy
    scep: ScepPolicy
    cmc: CmcPolicy
    acme: AcmePolicy

    @classmethod
    def of(cls, world: World) -> Policies:
        return cls(world.est, world.cmp, world.scep, world.cmc, world.acme.policy)

    def rule(self, world: World) -> None:
        """From now on *world* has these."""
        world.est, world.cmp, world.scep, world.cmc = self.est, self.cmp, self.scep, self.cmc
        world.acme.policy = self.acme


class _Silent(Transcript):
    """Keeps nothing: a life has ten thousand requests."""

    def add(self, *_: object) -> Entry:
        return _NOTHING


_NOTHING: Final = Entry("", "", "", "", "", (), 0, "", 0, (), 0, "", (), dropped=False)


class Estate:
    """Servers over one world. ``applied`` counts the faults that met a request or a connection;
    ``patience_until`` is until when some answer asked the device to wait; ``cut_off`` counts what keeps the
    device from each place. ``strayed`` says that in this step the device was lied to where the best rung
    of its ladder is, and then asked for a certificate in the other place."""

    def __init__(self, time: Time, chance: Random, fuse: Fuse, life: timedelta, house: House) -> None:
        self._time = time
        self._fuse = fuse
        self._faults: list[tuple[Town, Fault]] = []
        self._earlier: Counter[str] = Counter()
        self.house = house
        names = ("registrar.example", "annex.example")
        self.world = World.create(lambda: time.now, chance.randbytes, names=names, est=EstPolicy(life=life))
        self.world.scep = ScepPolicy(life=life)
        self.world.acme.policy = AcmePolicy(kinds=(HTTP_01,), life=life)
        self.board: dict[str, str] = {}
        self.world.acme.probe = lambda task: self.board.get(task.token)
        if house.told:
            both = chance.random() < 0.5 and not house.told_by
            ocsp = both or (house.told_by == "ocsp" if house.told_by else chance.random() < 0.5)
            self.world.standing = StandingPolicy(_STATUS, ocsp, both or not ocsp, life=house.interval)
        self.world.sell(SERIAL)
        self.usual = Policies.of(self.world)
        self._issuing: dict[x509.Certificate, None] = {}
        registrars = [name.partition(":") for name in REGISTRARS]
        main: dict[tuple[str, int], Server] = {(host, int(port)): "registrar" for host, _, port in registrars}
        annex: dict[tuple[str, int], Server] = {
            ("annex.example", 443): "registrar",
            _PLAIN: "plain",
            ("status.example", 80): "plain",
        }
        self._towns: dict[str, Town] = {host: "main" for host, _ in main}
        self.sites: dict[Town, Site] = {t: Site(self.world, transcript=_Silent()) for t in ("main", "annex")}
        self._links = {
            "main": self._transport("main", main),
            "annex": self._transport("annex", annex),
        }
        self._forgotten: Credential | None = None
        self._mended: Credential | None = None
        self.patience_until = time.now
        self.cut_off: Counter[Town] = Counter()
        self.requests = 0
        self._liars: set[Town] = set()
        self._best: Town = "annex" if house.ladder[0] in IN_ANNEX else "main"
        self._told: dict[Town, int] = {"main": 0, "annex": 0}
        self.strayed = False
        self.revoked_at: dict[int, datetime] = {}

    def _transport(self, town: Town, servers: dict[tuple[str, int], Server]) -> InProcessTransport:
        return InProcessTransport(
            self.sites[town],
            servers,
            on_request=lambda request: self._count(town, request),
            on_response=self._heard,
        )

    # --- the network ---------------------------------------------------------------------------------

    def open(self, channel: Channel) -> InProcessLink:
        """Implements ``holdfast.worker.ports.Transport``."""
        self._fuse.point("connect")
        town = self._towns.get(channel.host, "annex")
        if self.cut_off[town]:
            raise TransportError("transport.unreachable", "an outage")
        try:
            return self._links[town].open(channel)
        except TrustError:
            self._liars.add(town)
            raise

    def begin_step(self) -> None:
        """A new worker: it knows nothing of what the one before met."""
        self._liars.clear()
        self._note_lies()
        self._liars.clear()
        self.strayed = False

    def _note_lies(self) -> None:
        """Which place has lied since the last look."""
        for town, site in self.sites.items():
            applied = site.faults.applied
            new = applied[self._told[town] :]
            if any(fault.kind in _LIES and fault.where not in _ELSEWHERE for fault in new):
                self._liars.add(town)
            self._told[town] = len(applied)

    def _count(self, town: Town, request: HttpRequest) -> None:
        self._fuse.point("request")
        self.requests += 1
        if any(part in request.target for part in _ENROLLS):
            self._note_lies()
            self.strayed = self.strayed or (town != self._best and self._best in self._liars)

    def _heard(self, response: HttpResponse) -> None:
        self._fuse.point("answer")
        asked = self._time.now + _retry_after(response) * 1.25  # the agent adds up to a quarter
        self.patience_until = max(self.patience_until, asked)

    # --- misdeeds ------------------------------------------------------------------------------------

    @property
    def honest(self) -> tuple[x509.Certificate, ...]:
        """Every issuing CA that the owner had when somebody asked."""
        self._issuing |= dict.fromkeys(self.world.domain.intermediates)
        return tuple(self._issuing)

    @property
    def applied(self) -> Counter[str]:
        now = (fault for site in self.sites.values() for fault in site.faults.applied)
        return self._earlier + Counter(map(str, now))

    def begin_fault(self, fault: Fault, town: Town = "main") -> None:
        self._faults.append((town, fault))
        self.sites[town].faults.add(fault)

    def end_fault(self, fault: Fault, town: Town = "main") -> None:
        self._faults.remove((town, fault))
        self._note_lies()
        site = self.sites[town]
        self._earlier += Counter(map(str, site.faults.applied))
        site.faults = FaultPlan(fault for where, fault in self._faults if where == town)
        self._told[town] = 0
        self._tidy()

    def revoke(self) -> None:
        """The certificate that was issued last is accepted no more."""
        if self.world.issued:
            serial = self.world.issued[-1].certificate.serial_number
            self.world.revoked.add(serial)
            self.revoked_at.setdefault(serial, self._time.now)

    def publishes(self, leaf: x509.Certificate) -> bool:
        """Whether somebody tells of *leaf* if it is revoked, now."""
        domain, policy = self.world.domain, self.world.standing
        if not policy.url:
            return False
        current = leaf.issuer == domain.issuing.certificate.subject
        known = leaf.issuer in {c.subject for c in domain.intermediates}
        return (policy.ocsp and known) or (policy.crl and current)

    def restart(self) -> None:
        """What servers keep in memory only is gone: who waits for an approval, nonces."""
        self.world.pending.clear()
        self.world.nonces.clear()
        self.world.cmp_desk.conversations.clear()
        self.world.scep_desk.transactions.clear()
        self.world.cmc_desk.transactions.clear()
        self.world.acme.nonces.clear()

    # --- CAs over the years --------------------------------------------------------------------------

    def new_issuing_ca(self) -> None:
        self.world.domain = self.world.domain.reissued(self._time.now)
        self._tidy()

    def new_root(self) -> None:
        self.world.roll_over()
        self._tidy()

    def _tidy(self) -> None:
        """An owner does not hand out more CA certificates than devices take: the oldest go."""
        domain = self.world.domain
        while domain.former and len(set(domain.cacerts)) > EstLimits().ca_certificates:
            domain = _with_former(domain, domain.former[:-1])
        self.world.domain = domain

    def new_servers(self) -> None:
        """From now on the servers show certificates of the present CA; the MASA hears of the new root."""
        self.world.domain = self.world.domain.with_new_servers(self._time.now)
        self.world.sell(SERIAL)

    def retire_old_cas(self) -> None:
        """All but those that the servers still show, if the next change of root has begun already."""
        domain = self.world.domain
        shown = domain.registrar.chain[-1]
        needed = () if shown == domain.root.certificate else domain.former
        kept = tuple(pair for pair in needed if pair[0].certificate == shown)
        self.world.domain = _with_former(domain, kept)

    def let_registrar_expire(self) -> None:
        """The operator forgot a renewal; :meth:`mend_registrar` mends it, and so do new servers."""
        domain = self.world.domain
        if domain.registrar is self._forgotten:
            return
        self._mended = domain.registrar
        self._forgotten = _expired(domain, self._time)
        self.world.domain = replace(domain, registrar=self._forgotten)

    def mend_registrar(self) -> None:
        if self.world.domain.registrar is self._forgotten and self._mended is not None:
            self.world.domain = replace(self.world.domain, registrar=self._mended)


def _with_former(domain: Domain, former: tuple[tuple[Authority, Authority], ...]) -> Domain:
    """*domain* with only these CAs of before, and the links between the roots that it then has."""
    domain = replace(domain, former=former)
    names = {root.subject for root in domain.anchors}
    links = tuple(link for link in domain.links if {link.issuer, link.subject} <= names)
    return replace(domain, links=links)


def _retry_after(response: HttpResponse) -> timedelta:
    """How long a server asked to wait; a date may mean anything to a device whose clock is wrong."""
    text = response.header("Retry-After") or "0"
    return (
        timedelta(seconds=min(int(text), LONGEST_WAIT.total_seconds())) if text.isdecimal() else LONGEST_WAIT
    )


def _expired(domain: Domain, time: Time) -> Credential:
    old, end = domain.registrar, time.now.replace(microsecond=0) - timedelta(hours=1)
    san = old.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    usages = ca.end_entity(server, client, CMC_RA, san=tuple(san))
    life = Validity(end - timedelta(days=90), end)
    leaf = domain.issuing.sign(old.certificate.subject, old.key.public_key(), life, usages)
    return Credential((leaf, *domain.issuing.chain), old.key)
