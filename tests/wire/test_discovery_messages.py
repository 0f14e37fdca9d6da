"""Announcements: the examples of the RFCs, each rule broken by itself, and who is good for what."""

from __future__ import annotations

import ipaddress
from typing import Any

import cbor2
import dns.message
import dns.rrset
import pytest

from holdfast.wire.discovery import dnssd, grasp
from holdfast.wire.discovery.announced import Announced, Role, usable_address, usable_name
from holdfast.wire.errors import RemoteProtocolError

LINK = ipaddress.ip_address("fe80::1").packed
ULA = ipaddress.ip_address("fda3:79a6:f6ee::200:0:6400:1").packed
PROXY: list[Any] = [9, 12340815, LINK, 180000, [["AN_Proxy", 4, 1, ""], [103, LINK, 6, 4443]]]
"""RFC 8995 §4.1.1."""


def places(parts: object, sender: str = "fe80::9%eth1") -> tuple[Announced, ...]:
    return grasp.places(grasp.decode(cbor2.dumps(parts)), sender=sender, zone="eth0")


def test_the_proxy_of_rfc_8995() -> None:
    (found,) = places(PROXY)
    assert found == Announced("fe80::1%eth0", 4443, Role.PROXY, "fe80::9%eth0")
    assert found.endpoint == "[fe80::1%eth0]:4443"
    assert grasp.announcing("AN_Proxy", LINK, 4443, 12340815).encode() == cbor2.dumps(PROXY)


def test_the_registrar_of_rfc_8995() -> None:
    """§4.3: several objectives in one flood, of which this pledge speaks EST over TLS only."""
    told = [
        [["AN_join_registrar", 4, 255, "EST-TLS"], [103, ULA, 6, 8443]],
        [["AN_join_registrar", 4, 255, "CMP"], [103, ULA, 6, 8448]],
        [["AN_join_registrar", 4, 255, "BRSKI_JP"], [103, ULA, 17, 5684]],
    ]
    (found,) = places([9, 51804321, ULA, 180000, *told])
    assert found.role is Role.REGISTRAR
    assert found.endpoint == "[fda3:79a6:f6ee:0:200:0:6400:1]:8443"


def test_an_early_spelling_of_the_proxy_is_understood() -> None:
    (found,) = places([9, 1, LINK, 180000, [["AN_proxy", 4, 1, ""], [103, LINK, 6, 1]]])
    assert found.role is Role.PROXY


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([["AN_Proxy", 4, 1, ""], [103, LINK, 17, 4443]], "UDP"),
        ([["AN_Proxy", 1, 1, ""], [103, LINK, 6, 4443]], "not synchronised, so not flooded"),
        ([["AN_Proxy", 4, 1, "CMP"], [103, LINK, 6, 4443]], "another protocol"),
        ([["AN_Proxy", 4, 1, 7], [103, LINK, 6, 4443]], "a value of another type"),
        ([["Intent", 4, 1, ""], [103, LINK, 6, 4443]], "another objective"),
        ([["AN_Proxy", 4, 1, ""], []], "no place"),
        ([["AN_Proxy", 4, 1, ""], [106, "https://x/", None, None]], "a URI"),
        ([["AN_Proxy", 4, 1, ""], [103, bytes(16), 6, 4443]], "the unspecified address"),
        ([["AN_Proxy", 4, 1, ""], [103, bytes(15) + b"\1", 6, 4443]], "loopback"),
        ([["AN_Proxy", 4, 1, ""], [104, b"\xe0\0\0\1", 6, 4443]], "multicast"),
        ([["AN_Proxy", 4, 1, ""], [105, "bad name", 6, 4443]], "no host name"),
        ([["AN_Proxy", 4, 1, ""], [105, "-bad", 6, 4443]], "no host name"),
    ],
)
def test_what_is_of_no_use_is_passed_over(told: object, why: str) -> None:
    good = PROXY[4]
    assert [each.port for each in places([9, 1, LINK, 180000, told, good])] == [4443], why


def test_a_flood_that_is_over_announces_nothing() -> None:
    assert places([9, 1, LINK, 0, PROXY[4]]) == ()


def test_nobody_beyond_this_link_speaks_to_pledges() -> None:
    with pytest.raises(RemoteProtocolError, match="sender"):
        places(PROXY, sender="2001:db8::1")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({}, "grasp.message"),
        ([9, 1, LINK], "grasp.message"),
        ([9, 1, LINK, 180000], "grasp.message"),
        ([9, 1, LINK, 180000] + 17 * [PROXY[4]], "grasp.message"),
        ([9, -1, LINK, 180000, PROXY[4]], "grasp.session-id"),
        ([9, 2**32, LINK, 180000, PROXY[4]], "grasp.session-id"),
        ([9, True, LINK, 180000, PROXY[4]], "grasp.session-id"),
        ([9, 1, b"fe80", 180000, [["AN_Proxy", 4, 1, ""], [103, b"fe80", 6, 4443]]], "grasp.locator"),
        ([9, 1, "fe80::1", 180000, PROXY[4]], "grasp.initiator"),
        ([9, 1, LINK, -5, PROXY[4]], "grasp.ttl"),
        ([99, 1, LINK, 180000, PROXY[4]], "grasp.message-type"),
        ([[], 1, LINK, 180000, PROXY[4]], "grasp.message-type"),
        ([{}, 1, LINK, 180000, PROXY[4]], "grasp.message-type"),
        ([9.0, 1, LINK, 180000, PROXY[4]], "grasp.message-type"),
        ([9, 1, LINK, 180000, 7], "grasp.flood"),
        ([9, 1, LINK, 180000, [["AN_Proxy"], []]], "grasp.objective"),
        ([9, 1, LINK, 180000, [["", 4, 1], []]], "grasp.objective-name"),
        ([9, 1, LINK, 180000, [["x" * 201, 4, 1], []]], "grasp.objective-name"),
        ([9, 1, LINK, 180000, [["AN_Proxy", 4, 1, ""], [103, LINK, 6, 0]]], "grasp.locator"),
        ([9, 1, LINK, 180000, [["AN_Proxy", 4, 1, ""], [103, LINK, 6, 65536]]], "grasp.locator"),
        ([9, 1, LINK, 180000, [["AN_Proxy", 4, 1, ""], [103, LINK, 6]]], "grasp.locator"),
        ([9, 1, LINK, 180000, [["AN_Proxy", 256, 1, ""], []]], "grasp.objective"),
    ],
)
def test_each_rule_of_the_form(parts: object, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        grasp.decode(cbor2.dumps(parts))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (cbor2.dumps(PROXY) + b"\0", "octets follow"),
        (b"\x81" * 9 + b"\0", "nested"),
        (b"\xc0\x60", "tag"),
        (b"\x9f\xff", "additional information"),
        (b"\x9a\xff\xff\xff\xff", "more items"),
        (b"\x5a\xff\xff\xff\xff", "longer than the message"),
        (b"", "ends inside"),
        (b"\x19\x01", "ends inside a head"),
        (b"\x62\xff\xff", "utf-8|UTF-8|decod"),
    ],
)
def test_cbor_that_would_cost_more_than_it_weighs(data: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why) as raised:
        grasp.decode(data)
    assert raised.value.code == "cbor.malformed"


def test_a_message_has_a_size() -> None:
    with pytest.raises(RemoteProtocolError, match="too-large"):
        grasp.decode(bytes(grasp.MOST_OCTETS + 1))


def test_a_pledge_asks_and_is_understood() -> None:
    asked = grasp.soliciting(grasp.AN_PROXY, 5, LINK)
    assert grasp.decode(asked.encode()) == asked


# --- DNS-SD --------------------------------------------------------------------------------------------


def answer(*lines: tuple[str, str, str], domain: str = "local") -> dnssd.Records:
    asked = dns.message.from_wire(dnssd.question(dnssd.services(domain), "PTR", 7))
    message = dns.message.make_response(asked)
    for name, kind, data in lines:
        message.answer.append(dns.rrset.from_text(name, 120, "IN", kind, data))
    return dnssd.read(message.to_wire())


SERVICE = [
    ("_brski-proxy._tcp.local.", "PTR", "Hall\\0322._brski-proxy._tcp.local."),
    ("Hall\\0322._brski-proxy._tcp.local.", "SRV", "0 0 443 hall.local."),
    ("hall.local.", "A", "192.0.2.7"),
    ("hall.local.", "AAAA", "fe80::2"),
    ("hall.local.", "AAAA", "2001:db8::2"),
]


def test_multicast_gives_every_address_ipv6_first() -> None:
    found = dnssd.places(answer(*SERVICE), domain="local", announcer="me", zone="eth0")
    assert [each.endpoint for each in found] == ["[2001:db8::2]:443", "[fe80::2%eth0]:443", "192.0.2.7:443"]
    assert {each.role for each in found} == {Role.PROXY}


def test_unicast_gives_names_in_the_order_of_srv() -> None:
    lines = [
        ("_brski-registrar._tcp.example.com.", "PTR", "a._brski-registrar._tcp.example.com."),
        ("_brski-registrar._tcp.example.com.", "PTR", "b._brski-registrar._tcp.example.com."),
        ("a._brski-registrar._tcp.example.com.", "SRV", "20 0 443 late.example.com."),
        ("b._brski-registrar._tcp.example.com.", "SRV", "10 5 443 light.example.com."),
        ("b._brski-registrar._tcp.example.com.", "SRV", "10 9 8443 heavy.example.com."),
    ]
    found = dnssd.places(answer(*lines, domain="example.com"), domain="example.com", announcer="dns")
    assert [e.endpoint for e in found] == [
        "heavy.example.com:8443",
        "light.example.com:443",
        "late.example.com:443",
    ]
    assert {each.role for each in found} == {Role.REGISTRAR}


def test_an_instance_without_its_service_is_none() -> None:
    assert dnssd.places(answer(*SERVICE[1:]), domain="local", announcer="me", zone="eth0") == ()


def test_what_is_missing_can_be_asked_for() -> None:
    assert dnssd.unresolved(answer(SERVICE[0])) == (r"hall\0322._brski-proxy._tcp.local",)
    assert dnssd.homeless(answer(*SERVICE[:2])) == ("hall.local",)
    assert dnssd.unresolved(answer(*SERVICE)) == dnssd.homeless(answer(*SERVICE)) == ()


def test_an_answer_has_bounds() -> None:
    many = [("_brski-proxy._tcp.local.", "PTR", f"x{n}._brski-proxy._tcp.local.") for n in range(200)]
    assert len(answer(*many)) == dnssd.MOST_RECORDS
    with pytest.raises(RemoteProtocolError, match="too-large"):
        dnssd.read(bytes(dnssd.MOST_OCTETS + 1))


def test_a_question_is_no_answer() -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        dnssd.read(dnssd.question(["x.local"], "PTR", 1))
    assert raised.value.code == "dns.no-answer"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a..b", "x" * 254, "a/b", "é.example", "a%eth0", "[::1]"])
def test_no_host_names(name: str) -> None:
    assert usable_name(name) is None


@pytest.mark.parametrize(
    "text",
    ["::", "::1", "ff02::1", "::ffff:192.0.2.1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
)
def test_no_servers_addresses(text: str) -> None:
    assert usable_address(ipaddress.ip_address(text).packed, "eth0") is None


def test_a_link_local_address_needs_its_link() -> None:
    assert usable_address(LINK, "") is None
    assert usable_address(LINK, "a b") is None
    assert usable_name("Registrar.EXAMPLE.") == "registrar.example"
