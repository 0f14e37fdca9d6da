"""SOCKS 5: what we say, and each way in which a proxy can refuse or be none."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from holdfast.host.deadline import Deadline
from holdfast.host.dial import Proxy, dial
from holdfast.wire.errors import ConfigError, TransportError

GRANTED = b"\5\0\0\1\0\0\0\0\0\0"


def through(*answers: bytes, host: str = "reg.example") -> tuple[socket.socket, bytes]:
    """A connection through a proxy that says *answers*, one after each message; and what it was told."""
    server = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            for answer in answers:
                heard.append(peer.recv(1000))
                peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        port = server.getsockname()[1]
        proxy = Proxy.parse(f"socks5://127.0.0.1:{port}")
        return dial(host, 8443, Deadline(5, time.monotonic, "x"), proxy=proxy), heard[1]
    finally:
        thread.join()
        server.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("reg.example", b"\3\x0breg.example"),
        ("192.0.2.1", b"\1\xc0\0\2\1"),
        ("2001:db8::1", b"\4 \1\r\xb8" + bytes(11) + b"\1"),
    ],
)
def test_names_are_left_to_the_proxy_and_what_follows_is_left_in_the_socket(
    host: str, address: bytes
) -> None:
    sock, told = through(b"\5\0", GRANTED + b"hello", host=host)
    with sock:
        assert told == b"\5\1\0" + address + (8443).to_bytes(2, "big")
        assert sock.recv(9) == b"hello"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((b"\4\0",), "does not speak"),
        ((b"\5\2",), "user name"),
        ((b"\5\xff",), "user name"),
        ((b"\5",), "closed"),
        ((b"\5\0", b"\5\2\0\1\0\0\0\0\0\0"), "rules forbid"),
        ((b"\5\0", b"\5\x99\0\1\0\0\0\0\0\0"), "reply 153"),
        ((b"\5\0", b"\5\0\0\7\0\0\0\0\0\0"), "kind 7"),
        ((b"\5\0", b"\5\0\0\1\0"), "closed"),
        ((b"\5\0", b"HTTP/1.0 400"), "does not speak"),
    ],
)
def test_each_refusal(answers: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(TransportError, match=why) as raised:
        through(*answers)
    assert raised.value.code == "transport.proxy"


def test_no_password_is_taken_that_would_not_be_sent() -> None:
    with pytest.raises(ConfigError):
        Proxy.parse("socks5://u:p@proxy.example:1080")
