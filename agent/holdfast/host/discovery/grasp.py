"""Listening for GRASP on each link, and asking for what a pledge seeks (RFC 8990 §2.5.2, DULL)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from holdfast.host.discovery.interfaces import Interface, own_address
from holdfast.wire.discovery import grasp
from holdfast.wire.discovery.announced import Announced
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import RandomBytes

_IPV6_MULTICAST_ALL: Final = 29
_SOUGHT: Final = (grasp.AN_PROXY, grasp.AN_JOIN_REGISTRAR)


def open_socket(interfaces: Sequence[Interface]) -> socket.socket:
    """A socket that hears the group on *interfaces*, and beside others of this host. Raises OSError."""
    heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        heard.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        heard.bind(("::", grasp.PORT))
        for each in interfaces:
            group = socket.inet_pton(socket.AF_INET6, grasp.GROUP) + struct.pack("@I", each.index)
            with suppress(OSError):  # one without IPv6
                heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except BaseException:
        heard.close()
        raise
    return heard


def send(heard: socket.socket, message: grasp.Message, interface: Interface) -> None:
    """Send *message* to the group at *interface*; what cannot be sent is not."""
    with suppress(OSError):
        heard.sendto(message.encode(), (grasp.GROUP, grasp.PORT, 0, interface.index))


class GraspListener:
    """The part of a search that speaks GRASP."""

    def __init__(self, interfaces: Sequence[Interface], random: RandomBytes) -> None:
        self._interfaces = {each.index: each for each in interfaces}
        self._random = random
        self.socket = open_socket(interfaces)

    def ask(self) -> None:
        """Ask on every link who is a proxy or a registrar. Whoever floods anyway need not be asked."""
        for each in self._interfaces.values():
            own = own_address(grasp.GROUP, grasp.PORT, each.index)
            if own is None:
                continue
            session = int.from_bytes(self._random(4), "big")
            for name in _SOUGHT:
                asked = grasp.soliciting(name, session, ipaddress.ip_address(own).packed)
                send(self.socket, asked, each)

    def receive(self) -> tuple[Announced, ...]:
        """What one datagram announces; nothing where it is none of ours. Raises BlockingIOError."""
        data, sender = self.socket.recvfrom(grasp.MOST_OCTETS + 1)
        interface = self._interfaces.get(sender[3])
        if interface is None:
            return ()
        try:
            return grasp.places(grasp.decode(data), sender=sender[0], zone=interface.name)
        except RemoteProtocolError:
            return ()

    def close(self) -> None:
        self.socket.close()
