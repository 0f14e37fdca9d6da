"""DNS-SD by the resolvers of this host: ``_brski-registrar._tcp`` and its like in this network's domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import dns.exception
import dns.resolver
import dns.rrset

from holdfast.wire.discovery import dnssd
from holdfast.wire.discovery.announced import Announced

QUESTION_SECONDS: Final = 2.0
MOST_INSTANCES: Final = 8

Ask = Callable[[str, str], Iterable[dns.rrset.RRset]]
"""The records of a name and a type; none where there are none."""


def resolver(seconds: float) -> Ask:
    """Ask the resolvers of ``/etc/resolv.conf``, for at most *seconds* each time."""
    try:
        asked = dns.resolver.Resolver()
    except dns.exception.DNSException:  # no resolv.conf, or none that names a server
        return lambda _name, _kind: ()
    asked.lifetime = seconds

    def ask(name: str, kind: str) -> Iterable[dns.rrset.RRset]:
        try:
            answer = asked.resolve(name, kind, search=False)
        except (dns.exception.DNSException, OSError, ValueError):
            return ()
        return (*answer.response.answer, *answer.response.additional)

    return ask


def look(domains: Iterable[str], ask: Ask) -> tuple[Announced, ...]:
    """What the *domains* announce."""
    return tuple(each for domain in domains for each in _look(domain, ask))


def _look(domain: str, ask: Ask) -> Iterator[Announced]:
    records = dnssd.Records()
    for service in dnssd.services(domain):
        records |= dnssd.collect(ask(service, "PTR"))
    for instance in dnssd.unresolved(records)[:MOST_INSTANCES]:
        records |= dnssd.collect(ask(instance, "SRV"))
    yield from dnssd.places(records, domain=domain, announcer=domain)
