"""Tell that the network came up, by the kernel's own messages (rtnetlink(7)).

Standard library only: the resident process uses this. An address or a default route that was not there before
is a reason to try again what failed for want of a network; everything else that happens to interfaces is not.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

_GROUPS: Final = 0x10 | 0x100 | 0x40 | 0x400  # IPv4 and IPv6: addresses, routes
_RECEIVE: Final = 32 << 10
_MOST_MESSAGES: Final = 64
"""Datagrams read at one time: a storm of changes must not keep the agent from its other work."""

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix, flags, scope, interface
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, destination length, ...
_ATTRIBUTE: Final = struct.Struct("=HH")
_NEW_ADDRESS: Final = 20
_OLD_ADDRESS: Final = 21
_NEW_ROUTE: Final = 24
_MOST_KNOWN: Final = 1024
_SCOPE_LINK: Final = 253
"""Addresses of this scope and beyond (host) reach no server."""

_TENTATIVE: Final = 0x40
"""IPv6: not usable yet; another message follows when it is."""


class Change(NamedTuple):
    """One message of interest: ``kind`` is ``address``, ``gone`` or ``route``."""

    kind: str
    what: bytes = b""


class NetWatch:
    """Watches until it is closed. Use it in a ``with`` block.

    ``descriptor`` becomes readable when something changes: give it to ``select``, and ask :meth:`came_up`.
    It is None where the kernel grants no such socket.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
            )
            self._socket.bind((0, _GROUPS))
        except OSError:
            self.close()

    @property
    def descriptor(self) -> int | None:
        return None if self._socket is None else self._socket.fileno()

    def came_up(self) -> bool:
        """Whether an address or a default route is new since this was asked last. Never blocks."""
        up = False
        for _ in range(_MOST_MESSAGES):
            datagram = self._receive()
            if datagram is None:
                break
            for change in changes(datagram):
                up = self._is_news(change) or up
        return up

    def close(self) -> None:
        """Stop watching; closing twice is no error."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> bytes | None:
        if self._socket is None:
            return None
        try:
            return self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return None
        except OSError:
            return b""  # ENOBUFS: messages were lost, and more follow

    def _is_news(self, change: Change) -> bool:
        if change.kind == "route":
            return True
        if change.kind == "gone":
            self._known.discard(change.what)
            return False
        if change.what in self._known:
            return False  # a router advertisement prolonged it
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(change.what)
        return True


def changes(datagram: bytes) -> list[Change]:
    """What *datagram* tells that could matter; whatever is not understood is skipped."""
    found: list[Change] = []
    while len(datagram) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= length <= len(datagram):
            break
        change = _change(kind, datagram[_HEADER.size : length])
        if change is not None:
            found.append(change)
        datagram = datagram[(length + 3) & ~3 :]
    return found


def _change(kind: int, body: bytes) -> Change | None:
    if kind in {_NEW_ADDRESS, _OLD_ADDRESS} and len(body) >= _ADDRESS.size:
        family, prefix, flags, scope, interface = _ADDRESS.unpack_from(body)
        if scope >= _SCOPE_LINK or flags & _TENTATIVE:
            return None
        what = struct.pack("=BBI", family, prefix, interface) + _attributes(body[_ADDRESS.size :])
        return Change("address" if kind == _NEW_ADDRESS else "gone", what)
    if kind == _NEW_ROUTE and len(body) >= _ROUTE.size and _ROUTE.unpack_from(body)[1] == 0:
        return Change("route")
    return None


def _attributes(data: bytes) -> bytes:
    """The addresses among the attributes (IFA_ADDRESS, IFA_LOCAL): what tells one address from another."""
    found = b""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        if kind in {1, 2}:
            found += data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found
