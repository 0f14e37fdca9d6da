"""The sources of a search: bounded in what they make us remember, silent where they have nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

import dns.rrset
import pytest

from holdfast.host.config import DiscoverySettings, ManufacturerSettings, Settings
from holdfast.host.discovery import unicast
from holdfast.host.discovery.gathering import MOST_ANNOUNCERS, MOST_OF_ONE, Gathering
from holdfast.host.discovery.leases import Hints, hints
from holdfast.host.discovery.search import World, search
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced, Role


def place(port: int, announcer: str = "x") -> Announced:
    return Announced("h.example", port, Role.PROXY, announcer)


def test_one_announcer_gets_so_much_and_no_more() -> None:
    kept = Gathering(secrets.token_bytes)
    for port in range(1, 1000):
        kept.add([place(port)])
    kept.add([place(5, "y")])
    assert [each.port for each in kept.places] == [*range(1, MOST_OF_ONE + 1), 5]
    assert kept.heard == 1000


def test_many_announcers_share_by_chance_and_the_first_have_no_privilege() -> None:
    held = 0
    for _ in range(60):
        kept = Gathering(secrets.token_bytes)
        kept.add(place(1, f"x{n}") for n in range(4 * MOST_ANNOUNCERS))
        assert len(kept.places) == MOST_ANNOUNCERS
        held += any(each.announcer == "x127" for each in kept.places)
    assert 2 <= held <= 40, "the last of 128 has a chance of one in four"


LEASE = """\
# This is private data. Do not parse.
ADDRESS=10.1.2.3
DNS=10.1.2.1
DOMAINNAME=Site.example
DOMAIN_SEARCH_LIST=a.example b.example local
OPTION_224=7265672e736974652e6578616d706c653a38343433
OPTION_225=ff00
"""


def test_the_leases_of_networkd(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases/2").write_text(LEASE)
    (tmp_path / "resolv.conf").write_text("nameserver 10.1.2.1\nsearch site.example c.example -bad-\n")
    told = hints(224, leases=tmp_path / "leases", resolvers=(tmp_path / "resolv.conf", tmp_path / "none"))
    assert told == Hints(
        ("site.example", "a.example", "b.example", "c.example"), (("reg.site.example:8443", "2"),)
    )
    assert hints(225, leases=tmp_path / "leases", resolvers=()).named == ()
    assert hints(None, leases=tmp_path / "none", resolvers=()) == Hints()


@pytest.mark.parametrize("text", ["", "=", "DOMAINNAME", "\0\xff=\n", "DOMAINNAME=" + "x" * 100_000])
def test_leases_that_make_no_sense_say_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "3").write_text(text)
    assert hints(224, leases=tmp_path, resolvers=()) == Hints()


ZONE = {
    ("_brski-registrar._tcp.site.example", "PTR"): ["one._brski-registrar._tcp.site.example."],
    ("one._brski-registrar._tcp.site.example", "SRV"): ["0 0 8443 reg.site.example."],
}


def ask(name: str, kind: str) -> Iterable[dns.rrset.RRset]:
    return [dns.rrset.from_text(f"{name}.", 60, "IN", kind, line) for line in ZONE.get((name, kind), ())]


def test_dns_sd_in_a_domain_of_the_network() -> None:
    assert unicast.look(["site.example", "other.example"], ask) == (
        Announced("reg.site.example", 8443, Role.REGISTRAR, "site.example"),
    )


def settings(discovery: DiscoverySettings, *registrars: str, cloud: str | None = None) -> Settings:
    return Settings(registrars, ManufacturerSettings(Path("x"), cloud_registrar=cloud), discovery)


NO_HINTS = Hints()


def world(known: Hints = NO_HINTS) -> World:
    return World(secrets.token_bytes, lambda: 0.0, lambda _option: known, ask, lambda _wanted: ())


def test_every_source_says_what_it_has_or_why_it_has_nothing() -> None:
    every = DiscoverySettings(dhcp_option=224)
    nothing = search(settings(every), 0, (), world())
    assert nothing.places == ()
    assert [line.partition(":")[0] for line in nothing.silent] == [s.value for s in Source]
    told = search(
        settings(every, "[2001:db8::1]:1", cloud="maker.example:443"),
        0,
        ("[2001:db8::1]:1", "dhcp.example:2", "reg.site.example:8443"),
        world(Hints(("site.example",), (("dhcp.example:2", "2"), ("no place", "3")))),
    )
    assert [(source, each.endpoint, each.role) for source, each in told.places] == [
        (Source.LIST, "[2001:db8::1]:1", Role.REGISTRAR),
        (Source.DHCP, "dhcp.example:2", Role.REGISTRAR),
        (Source.DNS_SD, "reg.site.example:8443", Role.REGISTRAR),
        (Source.CLOUD, "maker.example:443", Role.CLOUD),
    ]
    assert [line.partition(":")[0] for line in told.silent] == ["mdns", "grasp"]


def test_nobody_is_listened_to_while_a_better_source_has_somebody() -> None:
    told = search(settings(DiscoverySettings(), "r.example:1"), 0, (), world())
    assert [line.partition(":")[0] for line in told.silent] == ["dhcp", "dns-sd"]
