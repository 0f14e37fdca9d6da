"""Announcements from strangers: our own errors alone, and no more kept than the bounds say."""

from __future__ import annotations

import ipaddress

import cbor2
import dns.message
import dns.rrset
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.test_fuzz_revocation import mutated
from holdfast.wire.discovery import cbor, dnssd, grasp
from holdfast.wire.errors import RemoteProtocolError

LINK = ipaddress.ip_address("fe80::1").packed
FLOOD = grasp.announcing(grasp.AN_PROXY, LINK, 4443, 12340815).encode()


def _answer() -> bytes:
    message = dns.message.make_response(
        dns.message.from_wire(dnssd.question(dnssd.services("local"), "PTR", 7))
    )
    for line in (
        ("_brski-proxy._tcp.local.", "PTR", "a\\032b._brski-proxy._tcp.local."),
        ("a\\032b._brski-proxy._tcp.local.", "SRV", "0 0 443 host.local."),
        ("host.local.", "AAAA", "fe80::2"),
        ("host.local.", "A", "192.0.2.7"),
    ):
        message.answer.append(dns.rrset.from_text(line[0], 120, "IN", line[1], line[2]))
    return message.to_wire()


ANSWER = _answer()


@given(st.one_of(st.binary(max_size=grasp.MOST_OCTETS + 9), mutated(FLOOD)))
@example(b"\x81" * 2048)
@example(b"\x9b" + b"\xff" * 8)
@example(b"\xd8\x1c\x81\xd8\x1d\x00")
def test_grasp(data: bytes) -> None:
    try:
        message = grasp.decode(data)
        found = grasp.places(message, sender="fe80::9", zone="eth0")
    except RemoteProtocolError:
        return
    assert len(found) <= grasp.MOST_OBJECTIVES
    for each in found:
        assert 0 < each.port < 65536
        assert each.endpoint.isascii()


@given(st.recursive(st.none() | st.integers() | st.text(max_size=9) | st.binary(max_size=17), st.lists))
def test_cbor_reads_back_what_may_be_read(value: object) -> None:
    data = cbor2.dumps(value)
    try:
        read = cbor.decode(data, limit=2048)
    except RemoteProtocolError:
        return
    assert read == value


@given(st.one_of(st.binary(max_size=dnssd.MOST_OCTETS + 9), mutated(ANSWER)))
def test_dns(data: bytes) -> None:
    try:
        records = dnssd.read(data)
    except RemoteProtocolError:
        return
    assert len(records) <= dnssd.MOST_RECORDS
    for each in dnssd.places(records, domain="local", announcer="x", zone="eth0"):
        assert 0 < each.port < 65536
        assert each.endpoint.isascii()


@given(st.text(max_size=40), st.integers(1, 65535), st.integers(0, 2**32 - 1))
def test_a_flood_reads_back(name: str, port: int, session: int) -> None:
    flood = grasp.announcing(name or "x", LINK, port, session)
    assert grasp.decode(flood.encode()) == flood
