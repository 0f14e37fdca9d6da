"""A device made of software, and short ways to make it speak to the simulator in process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from holdfast.wire import cms, oids
from holdfast.wire.brski.messages import MEDIA_TYPE, VoucherRequest, aki
from holdfast.wire.brski.verify import VoucherTrust
from holdfast.wire.csr import build
from holdfast.wire.model import Chain, ClockState, HttpRequest, HttpResponse, KeyAlgorithm, Moment, SigningKey
from holdfast_sim.answers import Peer
from holdfast_sim.ca import Credential, name, new_key
from holdfast_sim.faults import Fault
from holdfast_sim.link import InProcessTransport
from holdfast_sim.site import Site, without_root
from holdfast_sim.world import World

START = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
HOST, PORT = "localhost", 8443
SERIAL = "SIM-0001"
T = TypeVar("T")


@dataclass
class Time:
    """The one clock of a test."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def moment(self) -> Moment:
        return Moment(self.now, self.now, ClockState.TRUSTED)


@dataclass(frozen=True)
class Provisional:
    pass


@dataclass(frozen=True)
class Plain:
    pass


@dataclass(frozen=True)
class Anchored:
    check: Callable[[Chain], None]


@dataclass(frozen=True)
class Channel:
    host: str
    port: int
    trust: Provisional | Anchored | Plain
    client: tuple[Chain, SigningKey] | None = None
    max_tls12: bool = False


def make_world(time: Time, **options: Any) -> World:
    return World.create(time, Random(8995).randbytes, **options)


@dataclass
class Bench:
    """A site with one device that the ledger knows and nobody owns."""

    time: Time
    world: World
    site: Site
    device: Credential
    key: SigningKey = field(default_factory=lambda: new_key(KeyAlgorithm.P256))

    @classmethod
    def make(cls, *faults: str, at: datetime = START, **options: Any) -> Bench:
        time = Time(at)
        world = make_world(time, **options)
        world.sell(SERIAL)
        site = Site(world, map(Fault.parse, faults))
        return cls(time, world, site, world.manufacturer.device(SERIAL, time.now))

    @property
    def transport(self) -> InProcessTransport:
        servers = {(HOST, PORT): "registrar", (HOST, PORT + 1): "masa", (HOST, PORT + 2): "application"}
        return InProcessTransport(self.site, servers)

    @property
    def idevid(self) -> tuple[Chain, SigningKey]:
        return self.device.chain, self.device.key

    @property
    def trust(self) -> VoucherTrust:
        return VoucherTrust(
            self.world.manufacturer.anchors, frozenset(), SERIAL, aki(self.device.certificate)
        )

    def peer(self, credential: Credential | None = None, *, tls_unique: bytes | None = None) -> Peer:
        """Our side of a connection to the registrar, by default with the device's IDevID."""
        chain = (credential or self.device).chain
        return Peer(chain, without_root(self.world.domain.registrar.chain), tls_unique)

    @property
    def stranger(self) -> Peer:
        """A connection without a client certificate."""
        return Peer((), without_root(self.world.domain.registrar.chain))

    def send(self, request: HttpRequest, peer: Peer | None = None, server: Any = "registrar") -> HttpResponse:
        return self.site.answer(server, request, peer or self.peer()).response

    def get(self, operation: str, peer: Peer | None = None) -> HttpResponse:
        return self.send(HttpRequest("GET", f"/.well-known/est/{operation}"), peer)

    def enroll(
        self,
        csr: bytes | None = None,
        peer: Peer | None = None,
        operation: str = "simpleenroll",
        *headers: tuple[str, str],
        content_type: str = "application/pkcs10",
    ) -> HttpResponse:
        body = base64.encodebytes(csr if csr is not None else self.csr())
        target = f"/.well-known/est/{operation}"
        return self.send(HttpRequest("POST", target, (("Content-Type", content_type), *headers), body), peer)

    def csr(self, **options: Any) -> bytes:
        return build(self.key, name("gateway", serial_number=SERIAL), **options)

    def ldevid(self) -> Credential:
        """Enroll, and hold the result."""
        leaf = certificates(self.enroll())[0]
        return Credential((leaf, self.world.domain.issuing.certificate), self.key)

    def pvr(self, **changes: Any) -> bytes:
        """A signed pledge voucher request; *changes* replace leaves of the honest one."""
        registrar = self.world.domain.registrar.certificate
        leaves = {"nonce": "bm9uY2Utb2YtdGhlLXRlc3Q", "created_on": self.time.now}
        leaves |= {"proximity_registrar_cert": registrar.public_bytes(Encoding.DER), "serial_number": SERIAL}
        return self.signed(VoucherRequest(**(leaves | changes)).encode())

    def signed(self, content: bytes, signer: Credential | None = None, **options: Any) -> bytes:
        by = signer or self.device
        kind = options.pop("content_type", oids.CT_ANIMA_JSON_VOUCHER)
        return cms.sign(content, kind, by.key, by.certificate, by.chain[1:])

    def ask_voucher(self, pvr: bytes | None = None, peer: Peer | None = None) -> HttpResponse:
        body = pvr if pvr is not None else self.pvr()
        headers = (("Content-Type", MEDIA_TYPE),)
        return self.send(HttpRequest("POST", "/.well-known/brski/requestvoucher", headers, body), peer)


def certificates(response: HttpResponse) -> list[x509.Certificate]:
    """The certificates of an EST answer, read by a foreign parser."""
    assert response.status == 200, response.body
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(response.body))


def drive(
    exchange: Generator[HttpRequest, HttpResponse, T], send: Callable[[HttpRequest], HttpResponse]
) -> T:
    try:
        request = next(exchange)
        while True:
            request = exchange.send(send(request))
    except StopIteration as stop:
        return stop.value
