"""The join proxy: what it carries, and each limit that ends a carriage."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.test_fuzz_revocation import mutated
from holdfast.host.joinproxy.allowance import MOST_SOURCES, Ledger, ProxyLimits, source_of
from holdfast.host.joinproxy.circuit import Circuit
from holdfast.wire.discovery import dnssd
from holdfast.wire.discovery.announced import Role
from holdfast.wire.discovery.responder import Service, announcement, reply

LIMITS = ProxyLimits(
    connections=2, new_per_minute=3, most_connections=4, octets=1000, seconds=30, idle_seconds=10
)


# --- who may have how much -----------------------------------------------------------------------------


def test_so_many_at_one_time_of_one_source_and_of_all() -> None:
    ledger = Ledger(replace(LIMITS, new_per_minute=100))
    assert [ledger.admit("fe80::1%eth0", 0) for _ in range(3)] == ["fe80::1", "fe80::1", None]
    assert ledger.admit("fe80::2%eth0", 0)
    assert ledger.admit("fe80::3%eth0", 0)
    assert ledger.admit("fe80::4%eth0", 0) is None, "of all"
    ledger.release("fe80::1")
    assert ledger.admit("fe80::4%eth0", 0)
    assert ledger.refused == 2


def test_so_many_a_minute() -> None:
    ledger = Ledger(LIMITS)
    for now, admitted in ((0, True), (0, True), (0, True), (0, False), (19, False), (21, True), (21, False)):
        key = ledger.admit("fe80::1", now)
        assert (key is not None) is admitted, now
        if key is not None:
            ledger.release(key)


def test_a_flood_of_sources_is_forgotten_but_for_those_that_have_something_open() -> None:
    ledger = Ledger(replace(LIMITS, most_connections=10**6))
    kept = ledger.admit("fe80::1", 0)
    for n in range(10_000):
        ledger.release(ledger.admit(f"192.0.{n % 250}.{n // 250}", n) or "")
    assert ledger.remembered <= MOST_SOURCES
    assert kept is not None
    ledger.release(kept)
    assert ledger.open == 0


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("fe80::1:2%eth0", "fe80::1:2"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_who_counts_as_one(address: str, source: str) -> None:
    assert source_of(address) == source


# --- a circuit -----------------------------------------------------------------------------------------


class Line:
    """A circuit between a pledge and a registrar on loopback, driven by hand."""

    def __init__(self, dead: int = 0) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.pledge, inner = socket.socketpair()
        self.pledge.settimeout(5)
        nobody = socket.create_server(("127.0.0.1", 0))
        gone = nobody.getsockname()
        nobody.close()
        targets = [(int(socket.AF_INET), gone)] * dead + [(int(socket.AF_INET), self.server.getsockname())]
        self.now = 0.0
        self.circuit = Circuit(inner, targets, LIMITS, 0.0, "x")

    def turn(self) -> None:
        for sock, events in self.circuit.sockets.items():
            self.circuit.ready(sock, events, self.now)
        self.circuit.tick(self.now)

    def connect(self) -> socket.socket:
        while not self.circuit.connected and not self.circuit.over:
            self.turn()
        accepted, _ = self.server.accept()
        accepted.settimeout(5)
        return accepted

    def close(self) -> None:
        self.circuit.close()
        self.server.close()
        self.pledge.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_it_carries_octets_both_ways_and_ends_when_both_have_ended(line: Line) -> None:
    with line.connect() as registrar:
        line.pledge.sendall(b"hello")
        line.turn(), line.turn()
        assert registrar.recv(100) == b"hello"
        line.pledge.shutdown(socket.SHUT_WR)
        line.turn(), line.turn()
        assert registrar.recv(100) == b"", "a half-closed connection stays half open"
        registrar.sendall(b"answer")
        line.turn(), line.turn()
        assert line.pledge.recv(100) == b"answer"
        assert not line.circuit.over
        registrar.close()
        line.turn(), line.turn()
        assert line.circuit.over


def test_a_dead_registrar_is_passed_over_and_without_any_it_is_over() -> None:
    line = Line(dead=2)
    line.connect().close()
    line.close()
    alone = Line()
    alone.server.close()
    while not alone.circuit.over:
        alone.turn()
    alone.close()


def test_octets_seconds_and_silence_have_limits() -> None:
    for reason in ("octets", "seconds", "silence"):
        line = Line()
        with line.connect() as registrar:
            if reason == "octets":
                registrar.sendall(bytes(LIMITS.octets + 1))
            for at in range(29):
                line.now = float(at)
                line.turn()
                if reason == "seconds":
                    line.pledge.sendall(b".")
                    line.turn()
            assert line.circuit.over is (reason != "seconds"), reason
            line.now = LIMITS.seconds
            line.turn()
            assert line.circuit.over
        line.close()


# --- its answers by multicast DNS ----------------------------------------------------------------------

SERVICE = Service("_brski-proxy._tcp", "join-proxy-1", 4443, ("fe80::1", "192.0.2.9"))
QUESTION = dnssd.question(dnssd.services("local"), "PTR", 77)


def test_a_pledge_that_asks_once_gets_all_it_needs() -> None:
    said = reply(QUESTION, SERVICE, legacy=True)
    assert said is not None
    assert said.unicast
    found = dnssd.places(dnssd.read(said.data), domain="local", announcer="x", zone="eth0")
    assert [(e.endpoint, e.role) for e in found] == [
        ("[fe80::1%eth0]:4443", Role.PROXY),
        ("192.0.2.9:4443", Role.PROXY),
    ]
    assert dns.message.from_wire(said.data).id == 77


def test_others_on_the_link_hear_it_with_the_bit_that_says_it_is_unique() -> None:
    said = reply(QUESTION, SERVICE, legacy=False)
    assert said is not None
    assert not said.unicast
    told = dns.message.from_wire(said.data)
    assert told.id == 0
    assert {int(each.rdclass) for each in told.answer} == {1}, "the list of instances is shared"
    assert {int(each.rdclass) for each in told.additional} == {0x8001}


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("_services._dns-sd._udp.local", "PTR", 1),
        ("join-proxy-1._brski-proxy._tcp.local", "ANY", 2),
        ("JOIN-proxy-1.local", "AAAA", 1),
        ("join-proxy-1.local", "TXT", 0),
        ("other.local", "AAAA", 0),
        ("_http._tcp.local", "PTR", 0),
    ],
)
def test_what_is_asked_for_is_what_is_answered(name: str, kind: str, answers: int) -> None:
    said = reply(dnssd.question([name], kind, 1), SERVICE, legacy=True)
    assert (0 if said is None else len(dns.message.from_wire(said.data).answer)) == answers


def test_an_answer_is_no_question() -> None:
    assert reply(announcement(SERVICE), SERVICE, legacy=False) is None
    assert reply(bytes(9001), SERVICE, legacy=False) is None


@given(st.one_of(st.binary(max_size=600), mutated(QUESTION)), st.booleans())
def test_whatever_comes_it_answers_of_itself_or_not_at_all(data: bytes, legacy: bool) -> None:
    said = reply(data, SERVICE, legacy=legacy)
    if said is not None:
        assert len(said.data) < 1500


def test_taking_it_back_has_no_life() -> None:
    assert {each.ttl for each in dns.message.from_wire(announcement(SERVICE, 0)).answer} == {0}
    assert dns.rdatatype.SRV in {each.rdtype for each in dns.message.from_wire(announcement(SERVICE)).answer}
