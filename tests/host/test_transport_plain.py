"""Plain HTTP: the same bounds, deadlines and proxy rules as over TLS, and never a client."""

from __future__ import annotations

import pytest

from holdfast.host.tls import handshake
from holdfast.host.transport import Anchored, Channel, Limits, Plain, Provisional, TlsTransport, secured
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TransportError
from holdfast.wire.model import HttpRequest
from host.test_transport_dial import HttpProxy, answer_ok, closed_port, connected
from host.tls_server import OK, Authority, Conversation, TlsServer

POST = HttpRequest("POST", "/pki?operation=x", body=b"message")


def test_requests_follow_one_another_on_one_connection() -> None:
    with TlsServer(None, answer_ok) as server:
        channel = Channel("127.0.0.1", server.port, Plain())
        assert channel.origin == f"http://127.0.0.1:{server.port}"
        with TlsTransport().open(channel) as link:
            assert [link.send(POST).body for _ in range(2)] == [b"ok", b"ok"]
            assert (link.tls, link.requests, link.alive) == (None, 2, True)
        (conversation,) = server.conversations
        assert conversation.requests[0].startswith(b"POST /pki?operation=x HTTP/1.1\r\nHost: 127.0.0.1:")


def test_port_80_is_not_named_in_the_host_header() -> None:
    channel = Channel("ca.example", 80, Plain())
    assert (channel.origin, channel.default_port) == ("http://ca.example", 80)
    assert Channel("ca.example", 80, Provisional()).origin == "https://ca.example:80"


def test_a_plain_channel_has_no_client_and_no_tls() -> None:
    client = Authority("CA").issue("device")
    for options in ({"client": (client.chain, client.key)}, {"max_tls12": True}):
        with pytest.raises(LocalProtocolError, match=r"^tls\.plain-client"):
            Channel("ca.example", 80, Plain(), **options)
    with (
        TlsServer(None, answer_ok) as server,
        TlsTransport().open(Channel("127.0.0.1", server.port, Plain())) as link,
    ):
        for use in (lambda: secured(link), link.authenticate):
            with pytest.raises(LocalProtocolError, match=r"^tls\.plain:"):
                use()


def test_an_anchored_channel_never_becomes_plain() -> None:
    with TlsServer(None, answer_ok) as server, pytest.raises(TransportError) as caught:
        TlsTransport(Limits(connect=5)).open(Channel("127.0.0.1", server.port, Anchored(lambda _: None)))
    assert caught.value.code.startswith("transport.")
    with pytest.raises(LocalProtocolError, match=r"^tls\.plain:"):
        handshake(None, Channel("ca.example", 80, Plain()), None)


def silent(conversation: Conversation) -> None:
    conversation.request()
    conversation.request()


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        (
            lambda c: c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            TransportError,
            "truncated",
        ),
        (lambda c: c.request(), TransportError, "transport.closed"),
        (lambda c: c.answer(OK + b"more"), RemoteProtocolError, "http.unsolicited"),
        (lambda c: c.answer(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000)), RemoteProtocolError, "http.too-large"),
        (silent, TransportError, "transport.timeout"),
    ],
)
def test_bounds_and_deadlines_are_those_of_tls(script, kind: type[HoldfastError], code: str) -> None:
    transport = TlsTransport(Limits(read=0.5, body_bytes=4096))
    with (
        TlsServer(None, script) as server,
        transport.open(Channel("127.0.0.1", server.port, Plain())) as link,
    ):
        with pytest.raises(kind) as caught:
            link.send(POST)
        assert code in caught.value.code
        assert not link.alive


def test_nobody_there() -> None:
    with pytest.raises(TransportError, match=r"^transport\.unreachable"):
        TlsTransport().open(Channel("127.0.0.1", closed_port(), Plain()))


def test_plain_http_goes_through_the_proxy_as_everything_else_does() -> None:
    with TlsServer(None, answer_ok) as server, HttpProxy(connected, server.port) as proxy:
        with TlsTransport(proxy=proxy.url()).open(Channel("ca.example", 80, Plain())) as link:
            assert link.send(POST).status == 200
        assert proxy.heads == [b"CONNECT ca.example:80 HTTP/1.1\r\nHost: ca.example:80\r\n\r\n"]
        assert (
            server.conversations[0]
            .requests[0]
            .startswith(b"POST /pki?operation=x HTTP/1.1\r\nHost: ca.example\r\n")
        )
