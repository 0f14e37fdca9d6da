"""A device that speaks SCEP to the simulator in process, and what it asks for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import csr
from holdfast.wire.model import (
    Chain,
    EnrollmentRequest,
    Exchange,
    HttpRequest,
    KeyAlgorithm,
    Moment,
    Purpose,
    SigningKey,
    TlsInfo,
)
from holdfast.wire.scep.authority import Trust
from holdfast.wire.scep.client import ScepProtocol
from holdfast.wire.scep.http import Site as ScepSite
from holdfast_sim.answers import Peer
from holdfast_sim.ca import name, new_key
from holdfast_sim.faults import Fault
from holdfast_sim.scep_authority import ScepPolicy
from holdfast_sim.site import Site
from holdfast_sim.world import World
from sim.actors import Time, make_world

TLS = TlsInfo("https://localhost:8443", "TLSv1.3", (), True)
SAN = (x509.DNSName("gateway-7.example"),)


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys that are made once: RSA takes its time."""
    key = new_key(KeyAlgorithm.RSA2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@dataclass
class ScepBench:
    """A site with SCEP, and a device without TLS before it. ``sent`` are its requests, in order."""

    time: Time
    world: World
    site: Site
    sent: list[HttpRequest] = field(default_factory=list)

    @classmethod
    def make(cls, *faults: str, **policy: Any) -> ScepBench:
        time = Time()
        world = make_world(time)
        world.scep = ScepPolicy(**policy)
        return cls(time, world, Site(world, map(Fault.parse, faults)))

    @property
    def now(self) -> Moment:
        return self.time.moment()

    @property
    def issued(self) -> list[x509.Certificate]:
        return [each.certificate for each in self.world.issued]

    @property
    def operations(self) -> list[str]:
        """What was asked, in order: ``GET GetCACaps``."""
        short = ((r.method, r.target.partition("operation=")[2].partition("&")[0]) for r in self.sent)
        return [" ".join(each) for each in short]

    def protocol(self, **options: Any) -> ScepProtocol:
        """A client that trusts the domain's anchors."""
        trust = options.pop("trust", Trust(anchors=self.world.domain.anchors))
        return ScepProtocol(trust, ScepSite(self.world.scep.path), **options)

    def request(
        self, key: SigningKey | None = None, *, challenge: str | None = None, **options: Any
    ) -> EnrollmentRequest:
        key = key or rsa_key()
        subject = options.pop("subject", name("gateway-7"))
        return EnrollmentRequest(
            Purpose.INITIAL,
            csr.build(key, subject, san=SAN, challenge=challenge),
            key,
            subject,
            options.pop("anchors", self.world.domain.anchors),
            options.pop("transaction", secrets.token_bytes(16)),
            secrets.token_bytes,
            intermediates=self.world.domain.intermediates,
            **options,
        )

    def renewal(
        self, current: tuple[Chain, SigningKey], key: SigningKey, **options: Any
    ) -> EnrollmentRequest:
        first = self.request(key, **options)
        return replace(first, purpose=Purpose.REKEY, current=current, subject=current[0][0].subject)

    def run(self, exchange: Exchange[Any], *, before: Callable[[HttpRequest], None] | None = None) -> Any:
        try:
            request = next(exchange)
            while True:
                self.sent.append(request)
                if before is not None:
                    before(request)
                answer = self.site.answer("plain", request, Peer((), ()))
                request = exchange.send(answer.response)
        except StopIteration as stop:
            return stop.value

    def enroll(self, req: EnrollmentRequest | None = None, **options: Any) -> Any:
        return self.run(self.protocol(**options).enroll(req or self.request(), None, self.now))
