"""A device that speaks CMC to the simulator in process, and what it asks for."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography import x509

from holdfast.wire import csr
from holdfast.wire.cmc.answer import Judge
from holdfast.wire.cmc.client import CmcProtocol
from holdfast.wire.cmc.conversation import Conversation
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.signer import Identity, Signer
from holdfast.wire.cmc.site import Site as CmcSite
from holdfast.wire.model import (
    EnrollmentRequest,
    HttpRequest,
    HttpResponse,
    Issued,
    KeyAlgorithm,
    Outcome,
    Pending,
    Purpose,
    SigningKey,
)
from holdfast_sim.answers import Peer
from holdfast_sim.ca import name, new_key
from holdfast_sim.cmc_desk import CmcPolicy
from holdfast_sim.world import World
from sim.actors import SERIAL, Bench

NAME, SECRET = "gateway-7", b"sixteen bean rows"
SAN = (x509.DNSName("gateway-7.example"),)
PLAIN = "/cmc"


@dataclass
class Cmc:
    """One device before a CMC server. ``sent`` and ``received`` are all messages."""

    bench: Bench
    protocol: CmcProtocol
    over: str = "plain"
    sent: list[HttpRequest] = field(default_factory=list)
    received: list[HttpResponse] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        *faults: str,
        policy: CmcPolicy | None = None,
        secret: bool = False,
        over: str = "plain",
        **options: Any,
    ) -> Cmc:
        bench = Bench.make(*faults)
        bench.world.cmc = replace(policy or CmcPolicy(), secrets={NAME: SECRET})
        if secret:
            options["secret"] = SharedSecret(SECRET, NAME)
        site = CmcSite() if over == "est" else CmcSite(PLAIN)
        return cls(bench, CmcProtocol(site, **options), over)

    @property
    def world(self) -> World:
        return self.bench.world

    def request(self, key: SigningKey | None = None, **changes: Any) -> EnrollmentRequest:
        """A first enrollment by the IDevID."""
        subject = name("gateway", serial_number=SERIAL)
        key = key or self.bench.key
        template = self.protocol.read_wishes(b"")
        made = EnrollmentRequest(
            Purpose.INITIAL,
            csr.build(key, subject, template=template, san=changes.pop("san", SAN)),
            key,
            subject,
            self.world.domain.anchors,
            os.urandom(16),
            os.urandom,
            intermediates=self.world.domain.intermediates,
            signer=self.bench.idevid,
        )
        return replace(made, **changes)

    def renewal(self, issued: Issued, key: SigningKey | None = None, **changes: Any) -> EnrollmentRequest:
        """A renewal of what was issued, with another key unless one is given."""
        identity = (issued.chain, self.bench.key)
        first = self.request(key or new_key(KeyAlgorithm.P256))
        purpose = Purpose.RENEW if key is not None else Purpose.REKEY
        return replace(first, purpose=purpose, current=identity, signer=identity, **changes)

    def run(self, exchange: Generator[HttpRequest, HttpResponse, Any], peer: Peer | None = None) -> Any:
        """Drive one exchange; every message is kept."""
        server: Any = "plain" if self.over == "plain" else "registrar"
        try:
            request = next(exchange)
            while True:
                self.sent.append(request)
                response = self.bench.site.answer(server, request, peer or Peer((), ())).response
                self.received.append(response)
                request = exchange.send(response)
        except StopIteration as stop:
            return stop.value

    def enroll(self, request: EnrollmentRequest | None = None, *, patience: int = 12) -> Outcome:
        """Enroll and go on after every Pending, at its time."""
        req = request or self.request()
        outcome = self.run(self.protocol.enroll(req, None, self.bench.time.moment()))
        self.outcomes.append(outcome)
        while isinstance(outcome, Pending) and patience > 0:
            patience -= 1
            self.bench.time.now += outcome.retry_after
            outcome = self.resume(req, outcome)
        return outcome

    def resume(self, req: EnrollmentRequest, pending: Pending) -> Outcome:
        outcome = self.run(self.protocol.resume(req, pending.resume, None, self.bench.time.moment()))
        self.outcomes.append(outcome)
        return outcome

    def issued(self, request: EnrollmentRequest | None = None) -> Issued:
        outcome = self.enroll(request)
        assert isinstance(outcome, Issued), outcome
        return outcome

    def conversation(self, signer: Signer | None = None) -> Conversation:
        """For questions and revocations."""
        signer = signer or Identity(*self.bench.idevid)
        judge = Judge(self.world.domain.anchors, self.world.domain.intermediates)
        return Conversation(self.protocol.site, signer, judge, os.urandom, 4711, b"data to return")

    @property
    def waits(self) -> list[timedelta]:
        return [o.retry_after for o in self.outcomes if isinstance(o, Pending)]
