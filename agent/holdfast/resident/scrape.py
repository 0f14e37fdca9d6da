"""``GET /metrics`` for programs on this host: one short answer a connection, everything bounded."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

MAX_REQUEST: Final = 4096
MAX_CLIENTS: Final = 8
CLIENT_SECONDS: Final = 5.0
CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class _Client:
    """One connection on its way from request to answer."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.socket = sock
        self.deadline = deadline
        self.request = b""
        self.answer = b""


class Endpoint:
    """Serves the text of *content*. One part of a loop, as the control server is."""

    def __init__(
        self, listener: socket.socket, selector: selectors.BaseSelector, content: Callable[[], str]
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._content = content
        self._clients: list[_Client] = []
        listener.settimeout(0)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def next_at(self) -> float:
        """When :meth:`tick` must be called at the latest."""
        return min((c.deadline for c in self._clients), default=math.inf)

    def tick(self, now: float) -> None:
        """Send away who takes too long."""
        for client in tuple(self._clients):
            if now >= client.deadline:
                self._close(client)

    def close(self) -> None:
        """Send everyone away and stop listening."""
        for client in tuple(self._clients):
            self._close(client)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._close(self._clients[0])
        sock.settimeout(0)
        client = _Client(sock, time.monotonic() + CLIENT_SECONDS)
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._happened(client))

    def _happened(self, client: _Client) -> None:
        try:
            done = self._send(client) if client.answer else self._receive(client)
        except BlockingIOError:
            return
        except OSError:
            done = True
        if done:
            self._close(client)

    def _receive(self, client: _Client) -> bool:
        data = client.socket.recv(MAX_REQUEST)
        client.request += data
        if b"\r\n\r\n" not in client.request:
            return not data or len(client.request) > MAX_REQUEST
        client.answer = self._answer(client.request)
        self._selector.modify(client.socket, selectors.EVENT_WRITE, lambda _: self._happened(client))
        return self._send(client)

    def _send(self, client: _Client) -> bool:
        client.answer = client.answer[client.socket.send(client.answer) :]
        return not client.answer

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", "text/plain", "")
        if target != b"/metrics":
            return _response("404 Not Found", "text/plain", "")
        answer = _response("200 OK", CONTENT_TYPE, self._content())
        return answer if method == b"GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def _close(self, client: _Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        client.socket.close()


def _response(status: str, kind: str, text: str) -> bytes:
    body = text.encode()
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body
