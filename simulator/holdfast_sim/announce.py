"""A registrar that makes itself known: by multicast DNS (python-zeroconf's responder) and by GRASP floods.

It is for tests on links that hold nothing else; nothing here listens to what it must not believe.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from holdfast.wire.discovery import grasp
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import RandomBytes

SERVICES = {
    grasp.AN_JOIN_REGISTRAR: "_brski-registrar._tcp.local.",
    grasp.AN_PROXY: "_brski-proxy._tcp.local.",
}
Way = Literal["mdns", "grasp"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is announced: the ``port`` of a registrar at ``addresses`` of the link ``interface``, under a
    ``name``, in some ``ways``; floods come ``every`` so many seconds. With the ``objective`` of a proxy it is
    announced as one."""

    port: int
    addresses: tuple[str, ...]
    interface: str
    name: str
    ways: tuple[Way, ...]
    every: float = 60.0
    objective: str = grasp.AN_JOIN_REGISTRAR

    @property
    def service(self) -> str:
        return SERVICES[self.objective]


@contextlib.asynccontextmanager
async def announced(what: Announcement, random: RandomBytes) -> AsyncIterator[None]:
    """Announce until the block ends."""
    async with contextlib.AsyncExitStack() as ways:
        if "mdns" in what.ways:
            await ways.enter_async_context(_by_mdns(what))
        if "grasp" in what.ways:
            await ways.enter_async_context(_by_grasp(what, random))
        yield


@contextlib.asynccontextmanager
async def _by_mdns(what: Announcement) -> AsyncIterator[None]:
    packed = [ipaddress.ip_address(each).packed for each in what.addresses]
    only_6 = all(len(each) == 16 for each in packed)
    index = socket.if_nametoindex(what.interface)
    interfaces: Sequence[str | int] = [index] if only_6 else [a for a in what.addresses if ":" not in a]
    responder = AsyncZeroconf(
        interfaces=list(interfaces), ip_version=IPVersion.V6Only if only_6 else IPVersion.V4Only
    )
    info = ServiceInfo(
        what.service,
        f"{what.name}.{what.service}",
        addresses=packed,
        port=what.port,
        server=f"{what.name}.local.",
    )
    try:
        await responder.async_register_service(info)
        yield
    finally:
        await responder.async_close()


@contextlib.asynccontextmanager
async def _by_grasp(what: Announcement, random: RandomBytes) -> AsyncIterator[None]:
    flooder = _Flooder(what, random)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    index = socket.if_nametoindex(what.interface)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sock.bind(("::", grasp.PORT))
    group = socket.inet_pton(socket.AF_INET6, grasp.GROUP) + struct.pack("@I", index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: flooder, sock=sock)
    beat = asyncio.create_task(flooder.beat())
    try:
        yield
    finally:
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
        transport.close()


class _Flooder(asyncio.DatagramProtocol):
    def __init__(self, what: Announcement, random: RandomBytes) -> None:
        self._what = what
        self._random = random
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # by duck typing only, in CPython

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        """Whoever asks for a registrar need not wait for the next flood."""
        del addr
        try:
            message = grasp.decode(data)
        except RemoteProtocolError:
            return
        if isinstance(message, grasp.Discovery) and message.objective.name == self._what.objective:
            self._flood()

    async def beat(self) -> None:
        while True:
            self._flood()
            await asyncio.sleep(self._what.every)

    def _flood(self) -> None:
        for each in self._what.addresses:
            packed = ipaddress.ip_address(each).packed
            session = int.from_bytes(self._random(4), "big")
            flood = grasp.announcing(self._what.objective, packed, self._what.port, session)
            if self._transport is not None:
                self._transport.sendto(flood.encode(), (grasp.GROUP, grasp.PORT))
