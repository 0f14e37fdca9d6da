"""The answering side of multicast DNS for one service of ours (RFC 6762 §6, §8.3), without cache or state.

The service's name holds its host's interface identifier, so nobody else has it; it is announced and taken
back, and not probed for (§8.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from holdfast.wire.discovery.dnssd import MOST_OCTETS

LIFE_SECONDS: Final = 120
LEGACY_SECONDS: Final = 10
_UNICAST: Final = 0x8000  # of a question: "answer me alone"; of a record: "forget what you knew"
_ALL_SERVICES: Final = "_services._dns-sd._udp.local."
MOST_QUESTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Service:
    """``kind`` is like ``_brski-proxy._tcp``, ``label`` names instance and host, ``addresses`` are text."""

    kind: str
    label: str
    port: int
    addresses: tuple[str, ...]

    @property
    def domain(self) -> str:
        return f"{self.kind}.local."

    @property
    def instance(self) -> str:
        return f"{self.label}.{self.domain}"

    @property
    def host(self) -> str:
        return f"{self.label}.local."


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and whether it goes to the asker alone rather than to the group."""

    data: bytes
    unicast: bool


def announcement(service: Service, life: int = LIFE_SECONDS) -> bytes:
    """All of *service* unasked; with a *life* of 0 it is taken back."""
    message = _response(0)
    message.answer += _records(service, life, flush=True)
    return message.to_wire()


def reply(data: bytes, service: Service, *, legacy: bool) -> Reply | None:
    """What to say to the question *data*; None where it does not concern *service*, or is none.

    *legacy*: it came from another port than 5353, so it is answered as in unicast DNS (§6.7).
    """
    if len(data) > MOST_OCTETS:
        return None
    try:
        asked = dns.message.from_wire(data, continue_on_error=True, question_only=True)
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError):
        return None
    if asked.flags & dns.flags.QR or asked.opcode() != 0 or len(asked.question) > MOST_QUESTIONS:
        return None
    life = LEGACY_SECONDS if legacy else LIFE_SECONDS
    message = _response(asked.id if legacy else 0)
    for question in asked.question:
        message.answer += [
            each
            for each in _answers(question.name.to_text().lower(), question.rdtype, service, life, legacy)
            if each not in message.answer
        ]
    if not message.answer:
        return None
    if legacy:
        message.question = asked.question
    given = set(map(_key, message.answer))
    message.additional += [r for r in _records(service, life, flush=not legacy) if _key(r) not in given]
    alone = legacy or all(question.rdclass & _UNICAST for question in asked.question)
    return Reply(message.to_wire(), alone)


def _answers(name: str, kind: int, service: Service, life: int, legacy: bool) -> Iterable[dns.rrset.RRset]:
    if name == _ALL_SERVICES and kind in {dns.rdatatype.PTR, dns.rdatatype.ANY}:
        yield _record(name, life, "PTR", service.domain)
    for record in _records(service, life, flush=not legacy):
        if record.name.to_text().lower() == name and kind in {record.rdtype, dns.rdatatype.ANY}:
            yield record


def _records(service: Service, life: int, *, flush: bool) -> list[dns.rrset.RRset]:
    own = [
        _record(service.instance, life, "SRV", f"0 0 {service.port} {service.host}"),
        _record(service.instance, life, "TXT", '""'),
    ]
    for kind, version in (("AAAA", 6), ("A", 4)):
        fitting = [a for a in service.addresses if ipaddress.ip_address(a).version == version]
        own += [_record(service.host, life, kind, *fitting)] if fitting else []
    if flush:
        for each in own:
            each.rdclass = dns.rdataclass.RdataClass(dns.rdataclass.IN | _UNICAST)
    return [_record(service.domain, life, "PTR", service.instance), *own]


def _record(name: str, life: int, kind: str, *data: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, life, "IN", kind, *data)


def _key(record: dns.rrset.RRset) -> tuple[str, int]:
    return record.name.to_text().lower(), record.rdtype


def _response(identifier: int) -> dns.message.Message:
    message = dns.message.Message(id=identifier)
    message.flags = dns.flags.QR | dns.flags.AA
    return message
