"""Links: one link is exactly one connection, from its handshake to its end.

BRSKI's provisional phase and EST's proof of possession both speak about *this* connection, so a link never
reconnects: once it ended, ``send`` raises and the caller decides what a new connection would mean.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self

from holdfast.host.deadline import Deadline, Monotonic
from holdfast.host.dial import Proxy, Resolver, authority, dial
from holdfast.host.http1 import Http1Client, MessageLimits
from holdfast.host.tls import Anchored, Channel, Plain, Provisional, cut_off, fault, handshake
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError
from holdfast.wire.model import HttpRequest, HttpResponse, TlsInfo

__all__ = [
    "Anchored",
    "Channel",
    "Limits",
    "Link",
    "OnEvent",
    "Plain",
    "Provisional",
    "SocketLink",
    "TlsTransport",
    "secured",
]

OnEvent = Callable[[str, Channel], None]
"""Told of ``connect`` (handshake done, if there is one), ``request`` (written) and ``response`` (complete),
after each."""

_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for connecting (name, TCP, proxy and TLS together), for one read, and for a whole request;
    and the bounds of a response."""

    connect: float = 15.0
    read: float = 30.0
    total: float = 120.0
    header_bytes: int = 16 * 1024
    header_count: int = 100
    body_bytes: int = 1024 * 1024

    @property
    def message(self) -> MessageLimits:
        return MessageLimits(self.header_bytes, self.header_count, self.body_bytes)


class Link(Protocol):
    """One connection that carries requests one after another."""

    @property
    def tls(self) -> TlsInfo | None:
        """None on plain HTTP."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def requests(self) -> int:
        """How many requests were sent: the round trips of this link."""
        ...

    def send(self, request: HttpRequest) -> HttpResponse:
        """Raises TransportError or RemoteProtocolError; the link is dead after either."""
        ...

    def authenticate(self) -> None:
        """The voucher vouches for the server of this provisional link."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def secured(link: Link) -> TlsInfo:
    """The TLS side of *link*. Raises LocalProtocolError ``tls.plain`` where there is none."""
    if link.tls is None:
        raise LocalProtocolError("tls.plain", "this needs a TLS connection and got plain HTTP")
    return link.tls


@dataclass(frozen=True, slots=True)
class TlsTransport:
    """Opens links over TCP, with TLS unless the channel is plain. *proxy* is
    ``http://[user:password@]host:port``, and every link goes through it; the environment is not asked.
    *proxy_credentials* reads ``user:password`` when it is needed."""

    limits: Limits = Limits()
    proxy: str | None = field(default=None, repr=False)
    on_event: OnEvent | None = None
    user_agent: str = "holdfast"
    monotonic: Monotonic = time.monotonic
    resolver: Resolver = socket.getaddrinfo
    proxy_credentials: Callable[[], bytes] | None = field(default=None, repr=False)

    def open(self, channel: Channel) -> SocketLink:
        """Connect and shake hands. Use the link in a ``with`` statement.

        Raises the TrustError of an Anchored check itself, TransportError, RemoteProtocolError, KeyStoreError,
        and ConfigError for a proxy that cannot be read.
        """
        proxy = None if self.proxy is None else Proxy.parse(self.proxy)
        if proxy is not None and self.proxy_credentials is not None:
            proxy = proxy.authorized(self.proxy_credentials())
        seconds = min(self.limits.connect, channel.patience or self.limits.connect)
        deadline = Deadline(seconds, self.monotonic, f"connecting to {channel.origin}")
        sock = dial(channel.host, channel.port, deadline, proxy=proxy, resolver=self.resolver)
        info: TlsInfo | None = None
        try:
            if not channel.plain:
                sock, info = handshake(sock, channel, deadline)
        except BaseException:
            sock.close()
            raise
        link = SocketLink(sock, info, channel, self)
        link.tell("connect")
        return link


class SocketLink:
    """The link of a :class:`TlsTransport`."""

    def __init__(
        self, sock: socket.socket, info: TlsInfo | None, channel: Channel, transport: TlsTransport
    ) -> None:
        self._sock = sock
        self._info = info
        self._channel = channel
        self._transport = transport
        host = authority(channel.host, channel.port, channel.default_port)
        self._http = Http1Client(host, transport.limits.message, transport.user_agent)
        self._open = True
        self._requests = 0

    @property
    def tls(self) -> TlsInfo | None:
        return self._info

    @property
    def alive(self) -> bool:
        return self._open and self._http.reusable

    @property
    def requests(self) -> int:
        return self._requests

    def tell(self, event: str) -> None:
        """Report *event* to the transport's observer."""
        if self._transport.on_event is not None:
            self._transport.on_event(event, self._channel)

    def authenticate(self) -> None:
        self._info = replace(secured(self), authenticated=True)

    def send(self, request: HttpRequest) -> HttpResponse:
        """Carry one request and its response.

        Raises TransportError: ``transport.closed`` (the link ended, before or instead of an answer),
        ``transport.truncated``, ``transport.timeout``, ``transport.tls-alert``, ``transport.tls``;
        RemoteProtocolError: ``http.malformed``, ``http.too-large``, ``http.unsolicited``, ``http.encoding``;
        LocalProtocolError for a request that cannot be sent, which leaves the link as it was.
        """
        if not self.alive:
            raise TransportError("transport.closed", f"the connection to {self._channel.origin} has ended")
        limits = self._transport.limits
        deadline = Deadline(limits.total, self._transport.monotonic, f"{request.method} {request.target}")
        data = self._http.request(request)
        try:
            self._refuse_unsolicited()
            self._write(data, deadline)
            self._requests += 1
            self.tell("request")
            response = self._read(deadline)
        except BaseException:
            self.close()
            raise
        if not self._http.reusable:
            self.close()
        self.tell("response")
        return response

    def close(self) -> None:
        """End the connection; says so to the peer if that does not take waiting."""
        if self._open:
            self._open = False
            if isinstance(self._sock, ssl.SSLSocket):
                with suppress(OSError, ValueError):
                    self._sock.settimeout(0)
                    self._sock.unwrap()
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_unsolicited(self) -> None:
        """Between a response and the next request a server has nothing to say, except goodbye."""
        try:
            self._sock.settimeout(0)
            data = self._sock.recv(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except OSError as error:
            raise fault(error) from error
        if data:
            raise RemoteProtocolError("http.unsolicited", "the server spoke before it was asked")
        raise TransportError("transport.closed", "the server closed the connection between requests")

    def _write(self, data: bytes, deadline: Deadline) -> None:
        rest = memoryview(data)
        try:
            while rest:
                self._sock.settimeout(deadline.left(self._transport.limits.read))
                rest = rest[self._sock.send(rest) :]
        except TimeoutError as error:
            raise deadline.missed() from error
        except OSError as error:
            raise fault(error) from error

    def _read(self, deadline: Deadline) -> HttpResponse:
        response = None
        while response is None:
            patience = deadline.left(self._transport.limits.read)
            try:
                self._sock.settimeout(patience)
                data = self._sock.recv(_READ)
            except TimeoutError as error:
                raise deadline.missed(f"{patience:g} s without a byte") from error
            except OSError as error:
                if cut_off(error):  # no close_notify: whoever cut it would also choose where a body ends
                    raise self._http.cut() from error
                raise fault(error) from error
            response = self._http.receive(data)
        return response
