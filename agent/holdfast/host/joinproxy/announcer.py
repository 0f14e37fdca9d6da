"""Makes the proxy known on one link: GRASP floods of AN_Proxy, and a multicast DNS responder.

Questions are answered at most so often a second; all that an asker can make us keep is nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from holdfast.host.discovery import grasp as link
from holdfast.host.discovery.interfaces import Interface, own_address
from holdfast.wire.discovery import dnssd, grasp
from holdfast.wire.discovery.responder import Service, announcement, reply
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import RandomBytes

FLOOD_SECONDS: Final = 60.0
"""RFC 8995 §4.1.1."""

SHORTEST_PAUSE: Final = 0.2
"""Seconds between two answers of one kind, however many ask."""

KIND: Final = "_brski-proxy._tcp"
_READ_AT_ONCE: Final = 64


class Announcer:
    """One link. Raises OSError where it cannot be had, ``silent`` where the interface has no address."""

    def __init__(self, interface: Interface, port: int, random: RandomBytes) -> None:
        self._interface = interface
        self._port = port
        self._random = random
        own = own_address(grasp.GROUP, grasp.PORT, interface.index)
        if own is None:
            raise OSError(f"{interface.name} has no IPv6 address of its link")
        self.address = own
        packed = ipaddress.ip_address(own).packed
        self.service = Service(KIND, f"join-proxy-{packed[8:].hex()}", port, (own,))
        self._grasp = link.open_socket((interface,))
        self._mdns = _responder_socket(interface)
        self._last: dict[str, float] = {}
        self._next_flood = 0.0

    @property
    def sockets(self) -> dict[socket.socket, Callable[[float], None]]:
        """What to call, with the time, when each is readable."""
        return {self._grasp: self._hear_grasp, self._mdns: self._hear_mdns}

    def tick(self, now: float) -> None:
        """Flood and announce when it is time."""
        if now >= self._next_flood:
            self._next_flood = now + FLOOD_SECONDS
            self._flood(now)
            self._say(announcement(self.service), (dnssd.GROUP_6, dnssd.PORT, 0, self._interface.index))

    def close(self) -> None:
        """Take it back."""
        self._say(announcement(self.service, 0), (dnssd.GROUP_6, dnssd.PORT, 0, self._interface.index))
        self._grasp.close()
        self._mdns.close()

    def _flood(self, now: float) -> None:
        self._last["grasp"] = now
        packed = ipaddress.ip_address(self.address).packed
        session = int.from_bytes(self._random(4), "big")
        link.send(self._grasp, grasp.announcing(grasp.AN_PROXY, packed, self._port, session), self._interface)

    def _hear_grasp(self, now: float) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                data, _sender = self._grasp.recvfrom(grasp.MOST_OCTETS + 1)
            except OSError:
                return
            if not self._may("grasp", now):
                continue
            try:
                message = grasp.decode(data)
            except RemoteProtocolError:
                continue
            if isinstance(message, grasp.Discovery) and message.objective.name == grasp.AN_PROXY:
                self._flood(now)

    def _hear_mdns(self, now: float) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                data, sender = self._mdns.recvfrom(dnssd.MOST_OCTETS + 1)
            except OSError:
                return
            if not self._may("mdns", now):
                continue
            said = reply(data, self.service, legacy=sender[1] != dnssd.PORT)
            if said is None:
                continue
            self._last["mdns"] = now
            group = (dnssd.GROUP_6, dnssd.PORT, 0, self._interface.index)
            self._say(said.data, sender if said.unicast else group)

    def _may(self, kind: str, now: float) -> bool:
        return now - self._last.get(kind, -SHORTEST_PAUSE) >= SHORTEST_PAUSE

    def _say(self, data: bytes, to: tuple[str, int, int, int]) -> None:
        with suppress(OSError):
            self._mdns.sendto(data, to)


def _responder_socket(interface: Interface) -> socket.socket:
    """On port 5353, beside other responders of this host. Raises OSError."""
    heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
        heard.bind(("::", dnssd.PORT))
        group = socket.inet_pton(socket.AF_INET6, dnssd.GROUP_6) + struct.pack("@I", interface.index)
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except BaseException:
        heard.close()
        raise
    return heard
