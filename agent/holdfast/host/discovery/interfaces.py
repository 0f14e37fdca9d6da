"""The interfaces of this host that can hear neighbours."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 16
_SIOCGIFFLAGS: Final = 0x8913
_UP, _LOOPBACK, _RUNNING, _MULTICAST = 0x1, 0x8, 0x40, 0x1000  # netdevice(7)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface by its name and number."""

    name: str
    index: int


def listening(wanted: Sequence[str] = ()) -> tuple[Interface, ...]:
    """Interfaces that are up and know multicast, but for loopback; only those that are *wanted*, if any."""
    found: list[Interface] = []
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asked:
        for index, name in socket.if_nameindex():
            if (wanted and name not in wanted) or len(found) >= MOST:
                continue
            flags = _flags(asked, name)
            if flags & _UP and flags & _RUNNING and flags & _MULTICAST and not flags & _LOOPBACK:
                found.append(Interface(name, index))
    return tuple(found)


def _flags(asked: socket.socket, name: str) -> int:
    request = struct.pack("16sH14x", name.encode(), 0)
    try:
        answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, request)
    except OSError:  # it went while we looked
        return 0
    return int(struct.unpack_from("16xH", answer)[0])


def own_address(group: str, port: int, index: int) -> str | None:
    """The address from which a datagram to *group* would leave at interface *index*; None if it cannot."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((group, port, 0, index))
        except OSError:
            return None
        return str(asked.getsockname()[0]).partition("%")[0]
