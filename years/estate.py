"""The owner's side: servers with their faults, CAs that are replaced in the course of years, the network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.host.transport import Channel
from holdfast.wire.errors import TransportError
from holdfast.wire.est.session import EstLimits
from holdfast.wire.model import HttpRequest, HttpResponse
from holdfast_sim import ca
from holdfast_sim.ca import Credential, Validity
from holdfast_sim.domain import CMC_RA, Domain
from holdfast_sim.faults import BRSKI, CONNECTION, EST_ENROLL, EST_GET, EVERYWHERE, KINDS, Fault, FaultPlan
from holdfast_sim.link import InProcessLink, InProcessTransport
from holdfast_sim.site import Server, Site
from holdfast_sim.transcript import Entry, Transcript
from holdfast_sim.world import EstPolicy, World

from .clocks import Time
from .power import Fuse

SERIAL: Final = "HF-0001"
REGISTRARS: Final = ("registrar.example:8443", "second.example:8443")
PLACES: Final = (*sorted(EST_GET | EST_ENROLL | BRSKI), CONNECTION, EVERYWHERE)
"""Where the simulator can misbehave towards a device; its MASA hears of faults over TLS only."""

FAULTS: Final = tuple((where, kind) for where in PLACES for kind in sorted(KINDS[where]))


LONGEST_WAIT: Final = EstLimits().longest_wait


class _Silent(Transcript):
    """Keeps nothing: a life has ten thousand requests."""

    def add(self, *_: object) -> Entry:
        return _NOTHING


_NOTHING: Final = Entry("", "", "", "", "", (), 0, "", 0, (), 0, "", (), dropped=False)


class Estate:
    """Servers over one world. ``applied`` counts the faults that met a request or a connection;
    ``patience_until`` is until when some answer asked the device to wait."""

    def __init__(self, time: Time, chance: Random, fuse: Fuse, life: timedelta) -> None:
        self._time = time
        self._fuse = fuse
        self._faults: list[Fault] = []
        self._earlier: Counter[str] = Counter()
        self.world = World.create(
            lambda: time.now, chance.randbytes, names=("registrar.example",), est=EstPolicy(life=life)
        )
        self.world.sell(SERIAL)
        self.usual = self.world.est
        self._issuing: dict[x509.Certificate, None] = {}
        self.site = Site(self.world, transcript=_Silent())
        servers: dict[tuple[str, int], Server] = {}
        for name in REGISTRARS:
            host, _, port = name.partition(":")
            servers[host, int(port)] = "registrar"
        self._links = InProcessTransport(
            self.site,
            servers,
            on_request=self._count,
            on_response=self._heard,
        )
        self._forgotten: Credential | None = None
        self._mended: Credential | None = None
        self.patience_until = time.now
        self.outages = 0
        self.requests = 0

    # --- the network ---------------------------------------------------------------------------------

    def open(self, channel: Channel) -> InProcessLink:
        """Implements ``holdfast.worker.ports.Transport``."""
        self._fuse.point("connect")
        if self.outages:
            raise TransportError("transport.unreachable", "an outage")
        return self._links.open(channel)

    def _count(self, _request: HttpRequest) -> None:
        self._fuse.point("request")
        self.requests += 1

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
        return self._earlier + Counter(map(str, self.site.faults.applied))

    def begin_fault(self, fault: Fault) -> None:
        self._faults.append(fault)
        self.site.faults.add(fault)

    def end_fault(self, fault: Fault) -> None:
        self._faults.remove(fault)
        self._earlier = self.applied
        self.site.faults = FaultPlan(self._faults)
        self._tidy()

    def revoke(self) -> None:
        """The certificate that was issued last is accepted no more."""
        if self.world.issued:
            self.world.revoked.add(self.world.issued[-1].certificate.serial_number)

    def restart(self) -> None:
        """What servers keep in memory only is gone: who waits for an approval, nonces."""
        self.world.pending.clear()
        self.world.nonces.clear()

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
            domain = replace(domain, former=domain.former[:-1])
            names = {root.subject for root in domain.anchors}
            links = tuple(link for link in domain.links if {link.issuer, link.subject} <= names)
            domain = replace(domain, links=links)
        self.world.domain = domain

    def new_servers(self) -> None:
        """From now on the servers show certificates of the present CA; the MASA hears of the new root."""
        self.world.domain = self.world.domain.with_new_servers(self._time.now)
        self.world.sell(SERIAL)

    def retire_old_cas(self) -> None:
        self.world.domain = self.world.domain.without_former()

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
