"""An ACME client at the simulator in one process: exchanges driven by hand, nothing hidden by a transport."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire import csr
from holdfast.wire.acme.account import enter
from holdfast.wire.acme.challenges import Task
from holdfast.wire.acme.client import AcmeProtocol
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.acme.session import AcmeLimits, Session
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    HttpRequest,
    HttpResponse,
    Moment,
    Outcome,
    Pending,
    Purpose,
    SigningKey,
    TlsInfo,
)
from holdfast_sim.answers import Peer
from holdfast_sim.faults import Fault
from holdfast_sim.site import Site
from holdfast_sim.world import World

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MOMENT = Moment(NOW, NOW - timedelta(days=90), ClockState.TRUSTED)
ORIGIN = "https://acme.example:8443"
TLS = TlsInfo(ORIGIN, "TLSv1.3", (), True)
DNS = Identifier("dns", "gateway.example")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Board:
    """Meets classic challenges by showing them on a board that the simulator's validator reads."""

    kinds: frozenset[str] = frozenset({"http-01", "dns-01"})
    shown: dict[tuple[str, str], str] = field(default_factory=dict)
    withdrawn: int = 0

    def present(self, task: Task) -> None:
        value = task.dns_value if task.kind == "dns-01" else task.key_authorization
        self.shown[task.kind, task.identifier.value] = value

    def withdraw(self, task: Task) -> None:
        self.withdrawn += 1
        self.shown.pop((task.kind, task.identifier.value), None)

    def probe(self, task: Task) -> str | None:
        return self.shown.get((task.kind, task.identifier.value))


class Case:
    """One client, one server, one order."""

    def __init__(self, *faults: str, identifiers: Sequence[Identifier] = (DNS,), **options: Any) -> None:
        self.now: datetime = options.pop("now", NOW)
        self.world = World.create(lambda: self.now, secrets.token_bytes)
        self.site = Site(self.world, [Fault.parse(each) for each in faults])
        self.board = Board()
        self.world.acme.probe = self.board.probe
        self.account_key: SigningKey = options.pop("account_key", None) or new_key()
        self.key: SigningKey = options.pop("key", None) or new_key()
        self.current: tuple[Chain, SigningKey] | None = None
        self.attest: Callable[[bytes], bytes] | None = options.pop("attest", None)
        self.options = {"solver": self.board, **options}
        self.identifiers = tuple(identifiers)
        self.sent: list[HttpRequest] = []
        self.change: Callable[[HttpRequest, HttpResponse], HttpResponse] = lambda _, answer: answer

    @property
    def moment(self) -> Moment:
        return Moment(self.now, self.now - timedelta(days=90), ClockState.TRUSTED)

    @property
    def protocol(self) -> AcmeProtocol:
        kinds = self.options.pop("prefer", ("http-01", "dns-01"))
        self.options["prefer"] = kinds
        device = next((i.value for i in self.identifiers if i.type == "permanent-identifier"), None)
        named = None if device is None else lambda: device
        return AcmeProtocol("/acme/directory", device=named, **self.options)

    @property
    def request(self) -> EnrollmentRequest:
        san = [x509.DNSName(i.value) for i in self.identifiers if i.type == "dns"]
        return EnrollmentRequest(
            purpose=Purpose.INITIAL,
            csr=csr.build(self.key, x509.Name([]), san=san),
            key=self.key,
            subject=x509.Name([]),
            anchors=self.world.domain.anchors,
            transaction=b"t",
            random=secrets.token_bytes,
            current=self.current,
            account=self.account_key,
            attest=self.attest,
        )

    def drive(self, exchange: Generator[HttpRequest, HttpResponse, Any]) -> Any:
        """Each request goes to the simulator, each answer through ``change``."""
        try:
            request = next(exchange)
            while True:
                self.sent.append(request)
                with_host = HttpRequest(
                    request.method,
                    request.target,
                    (("Host", ORIGIN.removeprefix("https://")), *request.headers),
                    request.body,
                )
                answer = self.site.answer("registrar", with_host, Peer((), ())).response
                request = exchange.send(self.change(request, answer))
        except StopIteration as stop:
            return stop.value

    def enroll(self, *, legs: int = 12) -> Outcome:
        """Order, then every leg until the server is done or refuses."""
        request, protocol = self.request, self.protocol
        outcome = self.drive(protocol.enroll(request, TLS, self.moment))
        for _ in range(legs):
            if not isinstance(outcome, Pending):
                break
            outcome = self.drive(protocol.resume(request, outcome.resume, TLS, self.moment))
        found: Outcome = outcome
        return found

    def session(self, key: SigningKey | None = None) -> Session:
        """An open session with the account entered."""
        session = Session(TLS, key or self.account_key, AcmeLimits(), MOMENT)
        self.drive(session.open("/acme/directory"))
        if key is None:
            self.drive(enter(session))
        return session
