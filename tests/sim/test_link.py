"""The in-process link behaves as a TLS link does where the agent can tell."""

from __future__ import annotations

import base64

import pytest

from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Chain, HttpRequest
from holdfast_sim.faults import Fault
from sim.actors import HOST, PORT, Anchored, Bench, Channel, Plain, Provisional

CACERTS = HttpRequest("GET", "/.well-known/est/cacerts")


def test_what_a_link_knows(bench: Bench) -> None:
    link = bench.transport.open(Channel(HOST, PORT, Provisional()))
    assert link.tls.origin == "https://localhost:8443"
    assert (link.tls.version, link.tls.tls_unique, link.tls.authenticated) == ("TLSv1.3", None, False)
    assert len(link.tls.peer_chain) == 2, "without the root"
    assert (link.alive, link.requests) == (True, 0)
    response = link.send(CACERTS)
    assert response.header("Content-Length") == str(len(response.body))
    assert link.requests == 1


def test_tls12_has_a_binding_of_its_own_for_each_connection(bench: Bench) -> None:
    links = [
        bench.transport.open(Channel(HOST, PORT, Provisional(), bench.idevid, max_tls12=True)) for _ in "ab"
    ]
    first, second = (link.tls.tls_unique for link in links)
    assert first is not None
    assert first != second
    csr = base64.encodebytes(bench.csr(challenge=base64.b64encode(first).decode()))
    request = HttpRequest(
        "POST", "/.well-known/est/simpleenroll", (("Content-Type", "application/pkcs10"),), csr
    )
    assert [link.send(request).status for link in links] == [200, 400]


def test_an_anchored_link_is_checked_before_it_is_open(bench: Bench) -> None:
    def refuse(_: Chain) -> None:
        raise TrustError("test.refused")

    with pytest.raises(TrustError, match=r"test\.refused"):
        bench.transport.open(Channel(HOST, PORT, Anchored(refuse)))
    anchors, now = bench.world.impostor.anchors, bench.time.moment()

    def check(chain: Chain) -> None:
        validate(chain, anchors, now, Rule.tls_server(HOST, allow_cmcra=True))

    with pytest.raises(TrustError, match="untrusted"):
        bench.transport.open(Channel(HOST, PORT, Anchored(check)))
    bench.site.faults.add(Fault.parse("registrar:swap-certificate"))
    assert bench.transport.open(Channel(HOST, PORT, Anchored(check))).tls.authenticated


def test_a_plain_link_knows_no_tls_and_shows_no_client(bench: Bench) -> None:
    link = bench.transport.open(Channel(HOST, PORT, Plain()))
    assert link.tls is None
    csr = base64.encodebytes(bench.csr())
    request = HttpRequest(
        "POST", "/.well-known/est/simpleenroll", (("Content-Type", "application/pkcs10"),), csr
    )
    assert link.send(request).status == 401
    link.close()
    with pytest.raises(TransportError, match="http://localhost:8443"):
        link.send(request)


def test_trust_of_an_unknown_kind_is_refused(bench: Bench) -> None:
    with pytest.raises(TransportError, match="neither anchored nor provisional"):
        bench.transport.open(Channel(HOST, PORT, object()))  # type: ignore[arg-type]


def test_nobody_is_at_another_address(bench: Bench) -> None:
    with pytest.raises(TransportError, match="unreachable"):
        bench.transport.open(Channel("elsewhere", PORT, Provisional()))


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("drop-before", TransportError, "transport.closed"),
        ("drop-after", TransportError, "transport.closed"),
        ("slow", TransportError, "transport.timeout"),
        ("truncated", TransportError, "transport.truncated"),
        ("oversized", RemoteProtocolError, "http.too-large"),
        ("endless", RemoteProtocolError, "http.too-large"),
    ],
)
def test_a_link_that_failed_is_dead(fault: str, error: type[Exception], code: str) -> None:
    bench = Bench.make(f"cacerts:{fault}:1")
    link = bench.transport.open(Channel(HOST, PORT, Provisional()))
    with pytest.raises(error, match=code):
        link.send(CACERTS)
    assert not link.alive
    with pytest.raises(TransportError, match=r"transport\.closed"):
        link.send(CACERTS)
    assert bench.transport.open(Channel(HOST, PORT, Provisional())).send(CACERTS).status == 200


def test_the_same_connection_keeps_what_it_was_shown() -> None:
    """A registrar that changes its certificate is noticed by the next connection only, as in TLS."""
    bench = Bench.make("registrar:swap-certificate:after=1")
    first = bench.transport.open(Channel(HOST, PORT, Provisional(), bench.idevid))
    second = bench.transport.open(Channel(HOST, PORT, Provisional(), bench.idevid))
    assert first.tls.peer_chain != second.tls.peer_chain
    headers = (("Content-Type", "application/voucher-cms+json"),)
    pvr = bench.pvr(proximity_registrar_cert=first.tls.peer_chain[0])
    request = HttpRequest("POST", "/.well-known/brski/requestvoucher", headers, pvr)
    assert [first.send(request).status, second.send(request).status] == [200, 401]


def test_observers_see_each_round_trip_and_can_end_it(bench: Bench) -> None:
    """How a crash test stops the device between any two messages."""

    class PowerCut(BaseException):
        pass

    def cut(_: object) -> None:
        raise PowerCut

    from dataclasses import replace

    before = replace(bench.transport, on_request=cut).open(Channel(HOST, PORT, Provisional()))
    with pytest.raises(PowerCut):
        before.send(CACERTS)
    assert len(bench.site.transcript) == 0
    after = replace(bench.transport, on_response=cut).open(Channel(HOST, PORT, Provisional()))
    with pytest.raises(PowerCut):
        after.send(CACERTS)
    assert len(bench.site.transcript) == 1
    assert not before.alive
    assert not after.alive
