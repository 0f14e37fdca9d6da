"""A TCP connection to a host: every address in turn, through an HTTP proxy if configured, by a deadline."""

from __future__ import annotations

import base64
import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import h11

from holdfast.host import socks
from holdfast.host.deadline import Deadline
from holdfast.wire.discovery.announced import on_link
from holdfast.wire.errors import ConfigError, TransportError

Resolver = Callable[..., Sequence[tuple[Any, ...]]]
_PROXY_HEAD = 16 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT, or a SOCKS 5 one. ``authorization`` is a header value and never
    shown."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    socks: bool = False

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """From ``http://[user:password@]host:port`` or ``socks5://host:port``. Raises ConfigError
        ``config.proxy``, secret-free."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = None, None, None
        if (
            parts is None
            or parts.scheme not in {"http", "socks5"}
            or (parts.scheme == "socks5" and parts.username is not None)
            or not host
            or not port
            or parts.path.strip("/")
            or parts.query
        ):
            raise ConfigError(
                "config.proxy",
                "a proxy is written http://host:port, http://user:password@host:port or socks5://host:port",
            )
        if parts.username is None:
            return cls(host, port, socks=parts.scheme == "socks5")
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(host, port).authorized(pair.encode())

    def authorized(self, pair: bytes) -> Proxy:
        """This proxy with *pair*, ``user:password`` in UTF-8 (RFC 7617 §2). Raises ConfigError
        ``config.secret``, secret-free."""
        if b":" not in pair or any(octet < 0x20 or octet == 0x7F for octet in pair):
            raise ConfigError("config.secret", "proxy-credentials: the file holds user:password, on one line")
        return replace(self, authorization="Basic " + base64.b64encode(pair).decode("ascii"))


def is_address(host: str) -> bool:
    """Whether *host* is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def authority(host: str, port: int, default_port: int | None = None) -> str:
    """``host[:port]`` as URLs and Host headers write it: IPv6 in brackets and without its
    zone, which is nobody else's business (RFC 6874 §4), the default port left out."""
    name = f"[{host.partition('%')[0]}]" if ":" in host else host.lower()
    return name if port == default_port else f"{name}:{port}"


def dial(
    host: str,
    port: int,
    deadline: Deadline,
    *,
    proxy: Proxy | None = None,
    resolver: Resolver = socket.getaddrinfo,
) -> socket.socket:
    """A connected TCP socket to *host*, or to it through *proxy*. Environment variables play no part.

    Raises TransportError: ``transport.dns``, ``transport.unreachable``, ``transport.timeout``,
    ``transport.proxy``.
    """
    if proxy is None or on_link(host):  # another host's link is not ours
        return _connect(host, port, deadline, resolver)
    sock = _connect(proxy.host, proxy.port, deadline, resolver)
    try:
        if proxy.socks:
            socks.connect(sock, host, port, deadline)
        else:
            _tunnel(sock, proxy, authority(host, port), deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(host: str, port: int, deadline: Deadline, resolver: Resolver) -> socket.socket:
    addresses = _resolve(host, port, deadline, resolver)
    failures = []
    for index, (family, address) in enumerate(addresses):
        # A share of what is left: one address that swallows packets must not use up the time of the others.
        share = deadline.left() / (len(addresses) - index)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without that family, or a process without descriptors
            failures.append(f"{address[0]}: {error.strerror or error}")
            continue
        try:
            sock.settimeout(share)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            sock.close()
            failures.append(f"{address[0]}: {error.strerror or error}")
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    deadline.left()
    raise TransportError("transport.unreachable", f"{authority(host, port)}: " + "; ".join(failures))


def _resolve(
    host: str, port: int, deadline: Deadline, resolver: Resolver
) -> list[tuple[int, tuple[Any, ...]]]:
    """Addresses of *host*, families taking turns so that a broken one costs little (RFC 8305 §4).

    getaddrinfo knows no timeout, hence the thread: one that hangs is left behind, not waited for.
    """
    answers: queue.SimpleQueue[Sequence[tuple[Any, ...]] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolver(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise deadline.missed() from None
    if isinstance(answer, Exception):
        raise TransportError("transport.dns", f"{host}: {answer}") from answer
    families: dict[int, list[tuple[Any, ...]]] = {}
    for family, _, _, _, address in answer:
        families.setdefault(family, []).append(address)
    found: list[tuple[int, tuple[Any, ...]]] = []
    for turn in range(max(map(len, families.values()), default=0)):
        found += [
            (family, addresses[turn]) for family, addresses in families.items() if turn < len(addresses)
        ]
    if not found:
        raise TransportError("transport.dns", f"{host} has no address")
    return found


def _tunnel(sock: socket.socket, proxy: Proxy, target: str, deadline: Deadline) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_PROXY_HEAD)
    headers = [("Host", target)]
    if proxy.authorization is not None:
        headers.append(("Proxy-Authorization", proxy.authorization))
    try:
        head = connection.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b""
        end = connection.send(h11.EndOfMessage()) or b""
        sock.settimeout(deadline.left())
        sock.sendall(head + end)
        answer = _proxy_answer(sock, connection, deadline)
    except TimeoutError as error:
        raise deadline.missed() from error
    except (OSError, h11.ProtocolError) as error:
        raise TransportError("transport.proxy", f"no usable answer from the proxy: {error}") from error
    if answer.status_code == 407:
        which = "another" if proxy.authorization is not None else "a"
        raise TransportError("transport.proxy", f"the proxy wants {which} user name and password (407)")
    if not 200 <= answer.status_code < 300:
        raise TransportError("transport.proxy", f"the proxy refused to connect: {answer.status_code}")
    if connection.trailing_data[0]:
        raise TransportError("transport.proxy", "bytes follow the proxy's answer", clause="RFC 9110 §9.3.6")


def _proxy_answer(sock: socket.socket, connection: h11.Connection, deadline: Deadline) -> h11.Response:
    received = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            sock.settimeout(deadline.left())
            data = sock.recv(4096)
            received += len(data)
            if received > _PROXY_HEAD:
                raise TransportError("transport.proxy", "the proxy's answer is too long")
            connection.receive_data(data)
        elif not isinstance(event, h11.InformationalResponse):
            raise TransportError("transport.proxy", "the proxy closed the connection")
