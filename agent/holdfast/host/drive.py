"""Run an exchange over a link, or over the links that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, TlsInfo

T = TypeVar("T")


class Sender(Protocol):
    """What an exchange needs of its link."""

    @property
    def tls(self) -> TlsInfo | None: ...

    @property
    def alive(self) -> bool: ...

    def send(self, request: HttpRequest) -> HttpResponse: ...


def drive(exchange: Exchange[T], link: Sender, successor: Callable[[], Sender] | None = None) -> T:
    """Carry every request of *exchange* over *link* and return its outcome.

    Some EST servers end the connection after each answer (libest speaks HTTP/1.0). For them *successor* opens
    the next link. It is asked only where an answer was complete and another request follows, never after an
    error, and its server must show the certificate that the first one showed (on plain HTTP messages protect
    themselves, and there is none). An exchange that is bound to
    its connection (BRSKI's provisional one, a CSR with tls-unique) must not have one.

    The exchange hears of an error of the link and may end well all the same; else that error, or the one of
    the exchange, comes through unchanged. Raises TrustError ``tls.server-changed``.
    The exchange is closed in every case, so a driven exchange cannot be driven again.
    """
    try:
        request = next(exchange)
        while True:
            try:
                response = link.send(request)
            except (TransportError, RemoteProtocolError) as error:
                # The exchange may know of a worse error than that its last words were not heard, or that
                # they do not matter.
                exchange.throw(error)
                raise
            request = exchange.send(response)
            if successor is not None and not link.alive:
                link = _follow(link, successor())
    except StopIteration as stop:
        outcome: T = stop.value
        return outcome
    finally:
        exchange.close()


def _follow(ended: Sender, link: Sender) -> Sender:
    if ended.tls is None and link.tls is None:
        return link
    if ended.tls is None or link.tls is None or not link.tls.authenticated:
        raise LocalProtocolError("tls.successor", "only an authenticated link may follow another")
    if link.tls.peer_chain[:1] != ended.tls.peer_chain[:1]:
        raise TrustError(
            "tls.server-changed", "the next connection reached a server with another certificate"
        )
    return link
