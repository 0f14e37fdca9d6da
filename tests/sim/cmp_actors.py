"""A device that speaks CMP to the simulator in process."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography import x509

from holdfast.wire import csr
from holdfast.wire.cmp.client import CmpProtocol
from holdfast.wire.cmp.message import Message, parse
from holdfast.wire.cmp.protection import SharedSecret, SignedByAuthority, Signer
from holdfast.wire.cmp.transaction import Server, Transaction
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import (
    Chain,
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
from holdfast_sim.ca import name, new_key
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.world import World
from sim.actors import SERIAL, Bench

REFERENCE, SECRET = "gateway-7", b"nine bean rows"
SAN = (x509.DNSName("gateway-7.example"),)


@dataclass
class Cmp:
    """One device before a CMP server. ``sent`` and ``received`` are all messages, read."""

    bench: Bench
    protocol: CmpProtocol = field(default_factory=CmpProtocol)
    sent: list[Message] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @classmethod
    def make(cls, *faults: str, policy: CmpPolicy | None = None, secret: bool = False, **options: Any) -> Cmp:
        bench = Bench.make(*faults)
        policy = policy or CmpPolicy()
        bench.world.cmp = replace(policy, secrets={REFERENCE: SECRET})
        if secret:
            options["secret"] = SharedSecret(REFERENCE, SECRET, iterations=200)
        return cls(bench, CmpProtocol(**options))

    @property
    def world(self) -> World:
        return self.bench.world

    def request(self, **changes: Any) -> EnrollmentRequest:
        """A first enrollment by the IDevID."""
        subject = name("gateway", serial_number=SERIAL)
        key = self.bench.key
        made = EnrollmentRequest(
            Purpose.INITIAL,
            csr.build(key, subject, san=SAN),
            key,
            subject,
            self.world.domain.anchors,
            os.urandom(16),
            os.urandom,
            intermediates=self.world.domain.intermediates,
            signer=self.bench.idevid,
        )
        return replace(made, **changes)

    def renewal(self, issued: Issued, key: SigningKey | None = None) -> EnrollmentRequest:
        """A renewal of what was issued, with another key unless one is given."""
        new, subject = key or new_key(KeyAlgorithm.P256), issued.chain[0].subject
        identity = (issued.chain, self.bench.key)
        return replace(
            self.request(),
            purpose=Purpose.RENEW if key is not None else Purpose.REKEY,
            csr=csr.build(new, subject, san=SAN),
            key=new,
            current=identity,
            signer=identity,
        )

    def run(self, exchange: Generator[HttpRequest, HttpResponse, Any]) -> Any:
        """Drive one exchange; every message is kept."""
        try:
            request = next(exchange)
            while True:
                self.targets.append(request.target)
                self.sent.append(parse(request.body))
                response = self.bench.site.answer("registrar", request, self.bench.stranger).response
                with suppress(HoldfastError):  # what cannot be read is the client's to refuse
                    self.received.append(parse(response.body))
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

    def transaction(self, identity: tuple[Chain, SigningKey] | None = None, **options: Any) -> Transaction:
        """For questions and revocations."""
        judge = SignedByAuthority(self.world.domain.anchors, intermediates=self.world.domain.intermediates)
        signer = Signer(*(identity or self.bench.idevid))
        return Transaction(Server(), signer, judge, os.urandom, os.urandom(16), **options)

    @property
    def waits(self) -> list[timedelta]:
        return [o.retry_after for o in self.outcomes if isinstance(o, Pending)]
