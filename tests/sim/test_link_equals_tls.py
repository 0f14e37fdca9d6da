"""The in-process link and the agent's TLS transport tell a device the same: tests on one hold for both."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.host.transport import Anchored, Channel, Limits, Provisional, TlsTransport
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import HoldfastError, TransportError
from holdfast.wire.model import Chain, HttpRequest
from holdfast_sim.serve import running_server
from sim.actors import Bench

HOST = "127.0.0.1"
LIMITS = Limits(connect=10, read=2, total=10)
CACERTS = HttpRequest("GET", "/.well-known/est/cacerts")
FAULTS = ["drop-before", "drop-after", "truncated", "oversized", "endless", "no-type", "empty", "wrong-type"]
FAULTS += ["status:code=503:retry-after=5", "redirect", "pending", "garbage", "cut-der", "pem"]


def both(bench: Bench, ask: Callable[[Any, int], object], limits: Limits = LIMITS) -> tuple[object, object]:
    """What *ask* makes of the two transports, over the same site."""
    with running_server(bench.world) as running:
        running.faults.add(*bench.site.faults.declared)
        port = running.addresses.registrar[1]
        over_tls = _outcome(lambda: ask(TlsTransport(limits), port))
    transport = replace(bench.transport, servers={(HOST, port): "registrar"}, patience=2.0)
    return _outcome(lambda: ask(transport, port)), over_tls


def _outcome(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except HoldfastError as error:
        return type(error), error.code


def cacerts(transport: Any, port: int) -> object:
    with transport.open(Channel(HOST, port, Provisional())) as link:
        response = link.send(CACERTS)
        wanted = ("Content-Type", "Retry-After", "Location", "Content-Length", "Content-Transfer-Encoding")
        headers = [response.header(name) for name in wanted]
        return response.status, headers, response.body, link.requests, link.tls.authenticated, link.tls.origin


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_an_answer(fault: str) -> None:
    bench = Bench.make(*([f"cacerts:{fault}"] if fault else []), at=datetime.now(UTC))
    in_process, over_tls = both(bench, cacerts)
    assert in_process == over_tls


def test_silence() -> None:
    """The client loses patience soon; the server, which has an hour, stops when it is told to."""
    bench = Bench.make("cacerts:slow:seconds=3600", at=datetime.now(UTC))
    in_process, over_tls = both(bench, cacerts, replace(LIMITS, read=0.2))
    assert in_process == over_tls == (TransportError, "transport.timeout")


@pytest.mark.parametrize("max_tls12", [False, True])
def test_enrolling_with_a_client_certificate(max_tls12: bool) -> None:
    bench = Bench.make(at=datetime.now(UTC))

    def enroll(transport: Any, port: int) -> object:
        def check(chain: Chain) -> None:
            rule = Rule.tls_server(HOST, allow_cmcra=True)
            validate(chain, bench.world.domain.anchors, bench.time.moment(), rule)

        channel = Channel(HOST, port, Anchored(check), bench.idevid, max_tls12=max_tls12)
        with transport.open(channel) as link:
            unique = link.tls.tls_unique
            challenge = base64.b64encode(unique).decode() if unique else None
            body = base64.encodebytes(bench.csr(challenge=challenge))
            headers = (("Content-Type", "application/pkcs10"),)
            response = link.send(HttpRequest("POST", "/.well-known/est/simpleenroll", headers, body))
            return response.status, unique is not None, link.tls.version, link.tls.peer_chain

    in_process, over_tls = both(bench, enroll)
    assert in_process == over_tls
    assert in_process[:3] == (200, max_tls12, "TLSv1.2" if max_tls12 else "TLSv1.3")  # type: ignore[index]
    assert len(bench.world.issued) == 2


def test_a_server_of_another_domain() -> None:
    bench = Bench.make("registrar:swap-certificate", at=datetime.now(UTC))

    def knock(transport: Any, port: int) -> object:
        def check(chain: Chain) -> None:
            rule = Rule.tls_server(HOST, allow_cmcra=True)
            validate(chain, bench.world.domain.anchors, bench.time.moment(), rule)

        transport.open(Channel(HOST, port, Anchored(check), bench.idevid)).close()
        return "open"

    in_process, over_tls = both(bench, knock)
    assert in_process == over_tls
    assert in_process != "open"
