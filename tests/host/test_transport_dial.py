"""Names, addresses and proxies on the way to a server."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.host.dial import Proxy, authority, is_address
from holdfast.host.transport import Channel, Limits, Provisional, TlsTransport
from holdfast.wire.errors import ConfigError, TransportError
from holdfast.wire.model import HttpRequest
from host.tls_server import OK, Authority, Conversation, TlsServer, server_context

GET = HttpRequest("GET", "/x")
SERVER = Authority("CA").issue("est")


def answer_ok(conversation: Conversation) -> None:
    while conversation.request():
        conversation.sock.sendall(OK)


def closed_port() -> int:
    """A port that was free a moment ago: connecting to it is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def address(port: int, host: str = "127.0.0.1", family: int = socket.AF_INET) -> tuple[Any, ...]:
    return (family, socket.SOCK_STREAM, 6, "", (host, port))


def test_every_address_is_tried() -> None:
    def resolver(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        assert (host, port) == ("est.example", 443)
        return [address(closed_port()), address(closed_port()), address(server.port)]

    with TlsServer(server_context(SERVER), answer_ok) as server:
        transport = TlsTransport(resolver=resolver)
        with transport.open(Channel("est.example", 443, Provisional())) as link:
            assert link.send(GET).status == 200
            assert link.tls.origin == "https://est.example"


def test_families_take_turns() -> None:
    tried: list[str] = []
    six = [address(closed_port(), f"::ffff:127.0.0.{n}", socket.AF_INET6) for n in (1, 2)]
    four = [address(closed_port(), f"127.0.0.{n}") for n in (1, 2)]
    with pytest.raises(TransportError) as caught:
        TlsTransport(resolver=lambda *_, **__: six + four).open(Channel("est.example", 443, Provisional()))
    assert caught.value.code == "transport.unreachable"
    tried = [part.rsplit(": ", 1)[0] for part in caught.value.detail.split(": ", 1)[1].split("; ")]
    assert tried == ["::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.2", "127.0.0.2"]


def test_an_address_that_swallows_packets_leaves_time_for_the_next() -> None:
    # A listener whose backlog is full: further connections hang.
    with socket.socket() as full, TlsServer(server_context(SERVER), answer_ok) as server:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with crowd(full.getsockname()):
            addresses = [address(full.getsockname()[1]), address(server.port)]
            transport = TlsTransport(Limits(connect=2.0), resolver=lambda *_, **__: addresses)
            with transport.open(Channel("est.example", 443, Provisional())) as link:
                assert link.send(GET).status == 200


@contextmanager
def crowd(where: Any) -> Iterator[None]:
    guests = []
    try:
        for _ in range(4):
            guest = socket.socket()
            guests.append(guest)
            guest.setblocking(False)
            with suppress(BlockingIOError):
                guest.connect(where)
        yield
    finally:
        for guest in guests:
            guest.close()


def test_a_name_without_address() -> None:
    def resolver(*_: object, **__: object) -> list[tuple[Any, ...]]:
        raise socket.gaierror(-2, "Name or service not known")

    for answer in (resolver, lambda *_, **__: []):
        with pytest.raises(TransportError) as caught:
            TlsTransport(resolver=answer).open(Channel("nowhere.example", 443, Provisional()))
        assert caught.value.code == "transport.dns"


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "", "a..b", "bad host", "\x00"])
def test_a_name_that_cannot_be_one(host: str) -> None:
    with pytest.raises(TransportError):
        TlsTransport().open(Channel(host, closed_port(), Provisional()))


def test_a_name_that_resolves_but_cannot_be_one() -> None:
    with TlsServer(server_context(SERVER), answer_ok) as server:
        transport = TlsTransport(resolver=lambda *_, **__: [address(server.port)])
        for host in (
            "a..b",
            "a" * 64 + ".example",
            ".leading",
            "",
            "nul\0.example",
            "gerät.example",
            "日本.example",
        ):
            with pytest.raises(TransportError) as caught:
                transport.open(Channel(host, 443, Provisional()))
            assert caught.value.code == "transport.dns"


def test_a_resolver_that_hangs() -> None:
    never = threading.Event()
    transport = TlsTransport(Limits(connect=0.05), resolver=lambda *_, **__: [(never.wait(20),)])
    try:
        with pytest.raises(TransportError) as caught:
            transport.open(Channel("est.example", 443, Provisional()))
        assert caught.value.code == "transport.timeout"
    finally:
        never.set()


@given(st.text(max_size=40), st.integers(1, 65535))
def test_any_host_text_has_an_authority(host: str, port: int) -> None:
    assert authority(host, port).endswith(f":{port}")
    assert isinstance(is_address(host), bool)


# Proxies


class HttpProxy:
    """Answers one CONNECT with *reply*; after a 200 it carries bytes both ways to *port*."""

    def __init__(self, reply: Callable[[bytes], bytes], port: int) -> None:
        self._reply = reply
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.heads: list[bytes] = []

    def __enter__(self) -> HttpProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def url(self, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with client:
                client.settimeout(20)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                self.heads.append(head)
                reply = self._reply(head)
                client.sendall(reply)
                if reply.startswith(b"HTTP/1.1 200"):
                    self._carry(client)

    def _carry(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target), 20) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join(20)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def connected(_: bytes) -> bytes:
    return b"HTTP/1.1 200 Connection established\r\n\r\n"


def test_a_link_through_a_proxy() -> None:
    with TlsServer(server_context(SERVER), answer_ok) as server, HttpProxy(connected, server.port) as proxy:
        with TlsTransport(proxy=proxy.url()).open(Channel("est.example", 8443, Provisional())) as link:
            assert link.send(GET).status == 200
            assert link.tls.peer_chain[0] == SERVER.der
        assert proxy.heads == [b"CONNECT est.example:8443 HTTP/1.1\r\nHost: est.example:8443\r\n\r\n"]
        # the proxy's credentials and the CONNECT stay outside the tunnel
        assert b"CONNECT" not in server.conversations[0].requests[0]


def test_proxy_credentials_reach_the_proxy_alone() -> None:
    with TlsServer(server_context(SERVER), answer_ok) as server, HttpProxy(connected, server.port) as proxy:
        transport = TlsTransport(proxy=proxy.url("us%40er:p%3Ass@"))
        assert "ss@" not in repr(transport)
        with transport.open(Channel("est.example", 8443, Provisional())) as link:
            link.send(GET)
        token = base64.b64encode(b"us@er:p:ss")
        assert b"Proxy-Authorization: Basic " + token in proxy.heads[0]
        assert token not in server.conversations[0].requests[0]


def test_a_proxy_that_wants_a_password_is_told_apart() -> None:
    reply = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    for credentials, words in ((None, "wants a user"), (lambda: b"me:hunter2", "wants another user")):
        with HttpProxy(lambda _: reply, closed_port()) as proxy:
            transport = TlsTransport(proxy=proxy.url(), proxy_credentials=credentials)
            with pytest.raises(TransportError, match=words) as caught:
                transport.open(Channel("est.example", 443, Provisional()))
            assert caught.value.code == "transport.proxy"
            assert "hunter2" not in f"{caught.value}{transport!r}"
    assert b"Basic " + base64.b64encode(b"me:hunter2") in proxy.heads[0]


@pytest.mark.parametrize("pair", [b"no colon hunter2", b"me:hunter2\r\nX: y", b"me:hunter2\x00"])
def test_proxy_credentials_that_are_none(pair: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        Proxy.parse("http://proxy.example:3128").authorized(pair)
    assert caught.value.code == "config.secret"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://evil/\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 103 Hints\r\nX: " + b"y" * 16000 + b"\r\n\r\n" + b"HTTP/1.1 103 Hints\r\n\r\n" * 30,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03",
    ],
)
def test_a_proxy_that_does_not_connect(reply: bytes) -> None:
    with HttpProxy(lambda _: reply, closed_port()) as proxy:
        with pytest.raises(TransportError) as caught:
            TlsTransport(proxy=proxy.url("user:hunter2@")).open(Channel("est.example", 443, Provisional()))
        assert caught.value.code == "transport.proxy"
        assert ("too long" in caught.value.detail) is (len(reply) > 16 * 1024)
        assert "hunter2" not in str(caught.value)
        assert base64.b64encode(b"user:hunter2").decode() not in str(caught.value)


def test_a_proxy_that_never_answers() -> None:
    done = threading.Event()

    def reply(_: bytes) -> bytes:
        done.wait(20)
        return b""

    with HttpProxy(reply, closed_port()) as proxy:
        with pytest.raises(TransportError) as caught:
            TlsTransport(Limits(connect=0.1), proxy=proxy.url()).open(
                Channel("x.example", 443, Provisional())
            )
        assert caught.value.code == "transport.timeout"
        done.set()


@pytest.mark.parametrize(
    "url",
    [
        "", "proxy:3128", "https://proxy:3128", "socks4://proxy:1", "http://proxy", "http://:3128",
        "http://proxy:99999", "http://proxy:x", "http://u:hunter2@", "http://[::1", "http://proxy:1/path",
    ],
)  # fmt: skip
def test_a_proxy_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Proxy.parse(url)
    assert caught.value.code == "config.proxy"
    assert "hunter2" not in str(caught.value)


def test_a_proxy_at_an_ipv6_address() -> None:
    assert Proxy.parse("http://[::1]:3128") == Proxy("::1", 3128)


def test_a_family_that_the_kernel_does_not_know_is_one_address_that_fails() -> None:
    unknown = [(socket.AF_APPLETALK, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 443))]
    with pytest.raises(TransportError) as caught:
        TlsTransport(resolver=lambda *_, **__: unknown).open(Channel("est.example", 443, Provisional()))
    assert caught.value.code == "transport.unreachable"
    assert "192.0.2.1" in caught.value.detail
