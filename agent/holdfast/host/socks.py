"""SOCKS 5 (RFC 1928) to a proxy that the configuration names: one CONNECT, names resolved over there."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from holdfast.host.deadline import Deadline
from holdfast.wire.errors import TransportError

_VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REPLIES: Final = {
    1: "general failure",
    2: "its rules forbid it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    7: "it cannot CONNECT",
    8: "it does not know that kind of address",
}


def connect(sock: socket.socket, host: str, port: int, deadline: Deadline) -> None:
    """Let the proxy at *sock* connect to *host*. Raises TransportError ``transport.proxy``, ``-.timeout``."""
    try:
        _exchange(sock, host, port, deadline)
    except TimeoutError as error:
        raise deadline.missed() from error
    except OSError as error:
        raise _refused(f"no usable answer: {error}") from error


def _exchange(sock: socket.socket, host: str, port: int, deadline: Deadline) -> None:
    _send(sock, bytes((_VERSION, 1, _NO_AUTHENTICATION)), deadline)
    version, method = _read(sock, 2, deadline)
    if version != _VERSION:
        raise _refused("it does not speak SOCKS 5")
    if method != _NO_AUTHENTICATION:
        raise _refused("it wants a user name and password")
    _send(sock, bytes((_VERSION, _CONNECT, 0)) + _address(host) + port.to_bytes(2, "big"), deadline)
    version, reply, _, kind = _read(sock, 4, deadline)
    if version != _VERSION:
        raise _refused("it does not speak SOCKS 5")
    if reply:
        raise _refused(_REPLIES.get(reply, f"reply {reply}"))
    length = {_IPV4: 4, _IPV6: 16}.get(kind)
    if kind == _NAME:
        (length,) = _read(sock, 1, deadline)
    if length is None:
        raise _refused(f"an address of kind {kind}")
    _read(sock, length + 2, deadline)


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii", "replace")
        if len(name) > 255:
            raise _refused("the name is too long for it") from None
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def _send(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    sock.settimeout(deadline.left())
    sock.sendall(data)


def _read(sock: socket.socket, count: int, deadline: Deadline) -> bytes:
    """Exactly *count* octets, so that nothing of what follows is taken."""
    data = b""
    while len(data) < count:
        sock.settimeout(deadline.left())
        more = sock.recv(count - len(data))
        if not more:
            raise _refused("it closed the connection")
        data += more
    return data


def _refused(why: str) -> TransportError:
    return TransportError("transport.proxy", f"the SOCKS proxy: {why}", clause="RFC 1928")
