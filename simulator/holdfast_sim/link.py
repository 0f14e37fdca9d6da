"""The servers in process: links of the same shape as TLS links, without sockets (structural typing only)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.errors import RemoteProtocolError, TransportError
from holdfast.wire.model import Chain, HttpRequest, HttpResponse, SigningKey, TlsInfo

from .answers import Answer, Peer
from .site import Server, Site, without_root

PORTS = {"https": 443, "http": 80}


class Channel(Protocol):
    """Where to connect and whom to trust, as the agent's transport takes it.

    ``trust`` is provisional, or plain (no TLS), or has a ``check(chain)`` that raises to refuse the server.
    """

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def trust(self) -> object: ...
    @property
    def client(self) -> tuple[Chain, SigningKey] | None: ...
    @property
    def max_tls12(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class InProcessTransport:
    """Opens links into *site*. ``servers`` maps (host, port) to a server; a stranger is unreachable.

    ``body_limit`` bytes is what a response may hold, ``patience`` seconds what it may take: beyond them the
    link fails as a TLS link would, and no time passes. ``on_request`` and ``on_response`` are told of each
    round trip before the server sees it and after the client has it; what they raise comes through.
    """

    site: Site
    servers: Mapping[tuple[str, int], Server]
    body_limit: int = 1024 * 1024
    patience: float = 30.0
    on_request: Callable[[HttpRequest], None] = field(default=lambda _: None, repr=False)
    on_response: Callable[[HttpResponse], None] = field(default=lambda _: None, repr=False)

    def open(self, channel: Channel) -> InProcessLink:
        """Connect. Raises TransportError ``transport.unreachable`` and whatever the trust check raises."""
        server = self.servers.get((channel.host, channel.port))
        if server is None:
            raise TransportError("transport.unreachable", f"nobody listens at {channel.host}:{channel.port}")
        if type(channel.trust).__name__ == "Plain":
            return InProcessLink(
                self, server, Peer((), ()), None, _origin("http", channel.host, channel.port)
            )
        shown = without_root(self.site.server_credential(server).chain)
        trusted = check_server(channel.trust, shown)
        unique = self.site.world.random(12) if channel.max_tls12 else None
        client: Any = channel.client
        peer = Peer(tuple(client[0]) if client else (), shown, unique)
        info = TlsInfo(
            origin=_origin("https", channel.host, channel.port),
            version="TLSv1.2" if channel.max_tls12 else "TLSv1.3",
            peer_chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in shown),
            authenticated=trusted,
            tls_unique=unique,
        )
        return InProcessLink(self, server, peer, info, info.origin)


class InProcessLink:
    """One connection of an :class:`InProcessTransport`; it ends for good when it ends."""

    def __init__(
        self, transport: InProcessTransport, server: Server, peer: Peer, info: TlsInfo | None, origin: str
    ) -> None:
        self._transport = transport
        self._server: Server = server
        self._peer = peer
        self._info = info
        self._origin = origin
        self._alive = True
        self._requests = 0

    @property
    def tls(self) -> TlsInfo | None:
        return self._info

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def requests(self) -> int:
        return self._requests

    def authenticate(self) -> None:
        if self._info is not None:
            self._info = replace(self._info, authenticated=True)

    def send(self, request: HttpRequest) -> HttpResponse:
        """Raises TransportError and RemoteProtocolError with the codes of a TLS link, which then is dead."""
        if not self._alive:
            raise TransportError("transport.closed", f"the connection to {self._origin} has ended")
        try:
            self._transport.on_request(request)
            self._requests += 1
            host = self._origin.partition("://")[2]
            sent = replace(request, headers=(("Host", host), *request.headers))
            answer = self._transport.site.answer(self._server, sent, self._peer)
            response = self._receive(answer)
            self._transport.on_response(response)
        except BaseException:
            self._alive = False
            raise
        return response

    def _receive(self, answer: Answer) -> HttpResponse:
        delivery, body = answer.delivery, answer.response.body
        if delivery.drop:
            raise TransportError("transport.closed", "the peer closed the connection without an answer")
        if delivery.delay > self._transport.patience:
            raise TransportError("transport.timeout", f"{delivery.delay:g} s without a byte")
        if len(body) + delivery.pad > self._transport.body_limit:
            raise RemoteProtocolError("http.too-large", f"more than {self._transport.body_limit} bytes")
        if delivery.keep is not None:
            detail = f"{delivery.keep} of {len(body)} bytes came"
            raise TransportError("transport.truncated", detail)
        headers = (*answer.response.headers, ("Content-Length", str(len(body) + delivery.pad)))
        return HttpResponse(answer.response.status, headers, body + bytes(delivery.pad))

    def close(self) -> None:
        self._alive = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_server(trust: object, shown: Chain) -> bool:
    """Run the check of an anchored *trust*; True if there was one. Anything unknown is refused."""
    check = getattr(trust, "check", None)
    if callable(check):
        check(shown)
        return True
    if type(trust).__name__ == "Provisional":
        return False
    raise TransportError("transport.trust", f"{type(trust).__name__} is neither anchored nor provisional")


def _origin(scheme: str, host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port == PORTS[scheme] else f"{scheme}://{name}:{port}"
