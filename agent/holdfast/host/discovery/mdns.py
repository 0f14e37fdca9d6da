"""Asking by multicast DNS for registrars and proxies, once, from a port of our own (RFC 6762 §5.1)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from holdfast.host.discovery.gathering import MOST_ANNOUNCERS
from holdfast.host.discovery.interfaces import Interface
from holdfast.wire.discovery import dnssd
from holdfast.wire.discovery.announced import Announced
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import RandomBytes

_ASKED_AT_ONCE: Final = 8


class MdnsAsker:
    """One interface and one family. Answers come to its own socket and carry its own identifier, so they are
    to this question."""

    def __init__(self, family: socket.AddressFamily, interface: Interface, random: RandomBytes) -> None:
        self._interface = interface
        self._identifier = int.from_bytes(random(2), "big")
        self._answers: dict[str, dnssd.Records] = {}
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if family == socket.AF_INET6:
                self._group: tuple[str, int] | tuple[str, int, int, int]
                self._group = (dnssd.GROUP_6, dnssd.PORT, 0, interface.index)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            else:
                self._group = (dnssd.GROUP_4, dnssd.PORT)
                request = struct.pack("=4s4si", bytes(4), bytes(4), interface.index)  # ip_mreqn
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        except BaseException:
            self.socket.close()
            raise

    def ask(self) -> None:
        """Ask for the services; later also for what the answers so far have left open."""
        self._send(dnssd.services(dnssd.LOCAL), "PTR")
        known = dnssd.Records()
        for records in self._answers.values():
            known |= records
        self._send(dnssd.unresolved(known)[:_ASKED_AT_ONCE], "SRV")
        homeless = dnssd.homeless(known)[:_ASKED_AT_ONCE]
        self._send(homeless, "AAAA")
        self._send(homeless, "A")

    def _send(self, names: Sequence[str], kind: str) -> None:
        if names:
            with suppress(OSError):  # no address of that family there
                self.socket.sendto(dnssd.question(names, kind, self._identifier), self._group)

    def receive(self) -> tuple[Announced, ...]:
        """What one more datagram announces, together with what its sender said before. Raises
        BlockingIOError."""
        data, sender = self.socket.recvfrom(dnssd.MOST_OCTETS + 1)
        if sender[1] != dnssd.PORT or data[:2] != self._identifier.to_bytes(2, "big"):
            return ()
        try:
            records = dnssd.read(data)
        except RemoteProtocolError:
            return ()
        announcer = f"{sender[0].partition('%')[0]}%{self._interface.name}"
        said = self._answers.get(announcer, dnssd.Records()) | records
        if len(said) > dnssd.MOST_RECORDS:
            said = records
        if announcer in self._answers or len(self._answers) < MOST_ANNOUNCERS:
            self._answers[announcer] = said
        return dnssd.places(said, domain=dnssd.LOCAL, announcer=announcer, zone=self._interface.name)

    def close(self) -> None:
        self.socket.close()


def askers(interfaces: Sequence[Interface], random: RandomBytes) -> tuple[MdnsAsker, ...]:
    """One for each interface and family that this host has."""
    found = []
    for each in interfaces:
        for family in (socket.AF_INET6, socket.AF_INET):
            with suppress(OSError):
                found.append(MdnsAsker(family, each, random))
    return tuple(found)
