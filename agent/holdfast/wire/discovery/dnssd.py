"""DNS-SD (RFC 6763) over multicast (RFC 6762) and unicast DNS: questions out, announced places in.

A pledge asks once from a port of its own (RFC 6762 §5.1), so answers come to it alone: it keeps no cache,
holds no port that another responder of the host needs, and its caller bounds what it remembers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from holdfast.wire.discovery.announced import Announced, Role, usable_address, usable_name
from holdfast.wire.errors import RemoteProtocolError

PORT: Final = 5353
GROUP_6: Final = "ff02::fb"
GROUP_4: Final = "224.0.0.251"
MOST_OCTETS: Final = 9000
"""RFC 6762 §17."""

MOST_RECORDS: Final = 64
SERVICES: Final = {"_brski-registrar._tcp": Role.REGISTRAR, "_brski-proxy._tcp": Role.PROXY}
"""RFC 8995 §4.1.2 and Appendix B; the registrar's is for proxies, and for pledges without one."""

LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class Records:
    """What one or more answers hold of use: instances of a service, where each is, and addresses of hosts."""

    instances: frozenset[tuple[str, str]] = frozenset()  # service domain, instance
    servers: frozenset[tuple[str, int, int, int, str]] = frozenset()  # instance, priority, weight, port, host
    addresses: frozenset[tuple[str, bytes]] = frozenset()

    def __or__(self, other: Records) -> Records:
        return Records(
            self.instances | other.instances,
            self.servers | other.servers,
            self.addresses | other.addresses,
        )

    def __len__(self) -> int:
        return len(self.instances) + len(self.servers) + len(self.addresses)


def question(names: Iterable[str], kind: str, identifier: int) -> bytes:
    """One message that asks for records of *kind* (``PTR``, ``SRV``, ``AAAA``...) of all *names*."""
    message = dns.message.Message(id=identifier)
    for name in names:
        rdtype = dns.rdatatype.from_text(kind)
        message.question.append(
            dns.rrset.RRset(dns.name.from_text(name), dns.rdataclass.IN, rdtype),
        )
    return message.to_wire()


def read(data: bytes) -> Records:
    """The records of use in the answer *data*.

    One that cannot be read is passed over, because multicast DNS compresses names in places where unicast may
    not (RFC 6762 §18.14). Raises RemoteProtocolError ``dns.malformed``, ``dns.too-large``, and
    ``dns.no-answer`` for a question or an error.
    """
    if len(data) > MOST_OCTETS:
        raise RemoteProtocolError("dns.too-large", f"{len(data)} octets", clause="RFC 6762 §17")
    try:
        message = dns.message.from_wire(data, continue_on_error=True)
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError) as error:
        raise RemoteProtocolError("dns.malformed", f"{type(error).__name__}: {error}") from error
    if not message.flags & dns.flags.QR or message.rcode() != 0:
        raise RemoteProtocolError("dns.no-answer", "a question, or an error")
    return collect((*message.answer, *message.additional))


def collect(sets: Iterable[dns.rrset.RRset]) -> Records:
    """What is of use among *sets*, at most MOST_RECORDS of it."""
    instances: set[tuple[str, str]] = set()
    servers: set[tuple[str, int, int, int, str]] = set()
    addresses: set[tuple[str, bytes]] = set()
    taken = 0
    for each in sets:
        if each.rdclass != dns.rdataclass.IN:
            continue
        name = _text(each.name)
        for data in each:
            taken += 1
            if taken > MOST_RECORDS:
                break
            _sort(name, data, instances, servers, addresses)
    return Records(frozenset(instances), frozenset(servers), frozenset(addresses))


def _sort(
    name: str,
    data: Any,
    instances: set[tuple[str, str]],
    servers: set[tuple[str, int, int, int, str]],
    addresses: set[tuple[str, bytes]],
) -> None:
    match data.rdtype:
        case dns.rdatatype.PTR:
            instances.add((name, _text(data.target)))
        case dns.rdatatype.SRV if data.port:
            servers.add((name, data.priority, data.weight, data.port, _text(data.target)))
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            addresses.add((name, ipaddress.ip_address(data.address).packed))


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def services(domain: str) -> tuple[str, ...]:
    """The names to ask for in *domain*."""
    return tuple(f"{service}.{domain}" for service in SERVICES)


def unresolved(records: Records) -> tuple[str, ...]:
    """Instances that were named without a place."""
    placed = {instance for instance, *_ in records.servers}
    return tuple(sorted({instance for _, instance in records.instances} - placed))


def homeless(records: Records) -> tuple[str, ...]:
    """Hosts that services are at and whose address nobody told."""
    known = {host for host, _ in records.addresses}
    return tuple(sorted({host for *_, host in records.servers} - known))


def places(records: Records, *, domain: str, announcer: str, zone: str = "") -> tuple[Announced, ...]:
    """What *records* announce in *domain*, best first (RFC 2782). Under ``local`` a host is as good as its
    addresses, IPv6 first and those of the link *zone* with it; elsewhere it is called by its name."""
    roles = {f"{service}.{domain}".lower(): role for service, role in SERVICES.items()}
    of_instance = {instance: roles[kind] for kind, instance in sorted(records.instances) if kind in roles}
    found: list[Announced] = []
    for instance, priority, _weight, port, host in sorted(
        records.servers, key=lambda s: (s[1], -s[2], s[0], s[3], s[4])
    ):
        role = of_instance.get(instance)
        if role is None:
            continue
        names = _addresses(records, host, zone) if domain == LOCAL else filter(None, (usable_name(host),))
        found += (Announced(name, port, role, announcer, priority) for name in names)
    return tuple(dict.fromkeys(found))


def _addresses(records: Records, host: str, zone: str) -> Iterable[str]:
    packed = sorted((a for name, a in records.addresses if name == host), key=lambda a: (-len(a), a))
    return filter(None, (usable_address(a, zone) for a in packed))
