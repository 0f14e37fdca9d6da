"""Exchanges carried over a link."""

from __future__ import annotations

import pytest

from holdfast.host.drive import drive
from holdfast.wire.errors import HoldfastError, LocalProtocolError, TransportError, TrustError
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, TlsInfo


def tls(leaf: bytes = b"leaf", *, authenticated: bool = True) -> TlsInfo:
    return TlsInfo("https://est.example", "TLSv1.3", (leaf, b"ca"), authenticated)


class Echo:
    """Answers each request with its target as body; breaks on ``/broken``; ends after *last* requests."""

    def __init__(self, info: TlsInfo | None = None, last: int = 1000, *, plain: bool = False) -> None:
        self.sent: list[str] = []
        self.tls = None if plain else info or tls()
        self.last = last

    @property
    def alive(self) -> bool:
        return len(self.sent) < self.last

    def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request.target)
        if request.target == "/broken":
            raise TransportError("transport.closed")
        return HttpResponse(200, (), request.target.encode())


def visits(closed: list[bool], *targets: str) -> Exchange[list[bytes]]:
    bodies = []
    try:
        for target in targets:
            response = yield HttpRequest("GET", target)
            bodies.append(response.body)
            if response.body == b"/distrusted":
                raise TrustError("chain.untrusted")
        return bodies
    finally:
        closed.append(True)


def test_every_request_is_carried_and_the_outcome_returned() -> None:
    closed: list[bool] = []
    link = Echo()
    assert drive(visits(closed, "/a", "/b"), link) == [b"/a", b"/b"]
    assert (link.sent, closed) == (["/a", "/b"], [True])


def test_an_exchange_without_requests() -> None:
    assert drive(visits([]), Echo()) == []


@pytest.mark.parametrize(("target", "kind"), [("/broken", TransportError), ("/distrusted", TrustError)])
def test_errors_come_through_and_the_exchange_is_closed(target: str, kind: type[Exception]) -> None:
    closed: list[bool] = []
    link = Echo()
    exchange = visits(closed, "/a", target, "/never")
    with pytest.raises(kind):
        drive(exchange, link)
    assert link.sent == ["/a", target]
    assert closed == [True]
    assert exchange.gi_frame is None


def test_a_link_that_ended_after_its_answer_is_followed_by_the_next() -> None:
    links = [Echo(last=1), Echo(last=1), Echo()]
    rest = iter(links[1:])
    assert drive(visits([], "/a", "/b", "/c"), links[0], lambda: next(rest)) == [b"/a", b"/b", b"/c"]
    assert [link.sent for link in links] == [["/a"], ["/b"], ["/c"]]


def test_no_link_is_opened_for_nothing() -> None:
    asked: list[Echo] = []

    def successor() -> Echo:
        asked.append(Echo())
        return asked[-1]

    assert drive(visits([], "/a"), Echo(last=1), successor) == [b"/a"]
    with pytest.raises(TransportError):
        drive(visits([], "/broken", "/b"), Echo(last=1), successor)
    assert asked == []


@pytest.mark.parametrize(
    ("next_tls", "kind", "code"),
    [
        (tls(b"another leaf"), TrustError, "tls.server-changed"),
        (tls(authenticated=False), LocalProtocolError, "tls.successor"),
    ],
)
def test_the_next_link_must_be_to_the_same_authenticated_server(
    next_tls: TlsInfo, kind: type[HoldfastError], code: str
) -> None:
    closed: list[bool] = []
    following = Echo(next_tls)
    with pytest.raises(kind) as caught:
        drive(visits(closed, "/a", "/b"), Echo(last=1), lambda: following)
    assert caught.value.code == code
    assert (following.sent, closed) == ([], [True])


def test_plain_http_follows_plain_http_alone() -> None:
    following = Echo(plain=True)
    assert drive(visits([], "/a", "/b"), Echo(last=1, plain=True), lambda: following) == [b"/a", b"/b"]
    for ended, link in ((Echo(last=1), Echo(plain=True)), (Echo(last=1, plain=True), Echo())):
        with pytest.raises(LocalProtocolError, match=r"^tls\.successor"):
            drive(visits([], "/a", "/b"), ended, lambda link=link: link)
