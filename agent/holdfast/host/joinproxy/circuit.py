"""One connection of a pledge, joined to one to the registrar: octets both ways, unread, within limits."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from holdfast.host.joinproxy.allowance import ProxyLimits

BUFFER: Final = 32 * 1024

Target = tuple[int, tuple[Any, ...]]
"""Address family and socket address."""


class Circuit:
    """``over`` is set once it has ended; whoever drives it then closes it. Raises nothing."""

    def __init__(
        self, pledge: socket.socket, targets: Sequence[Target], limits: ProxyLimits, now: float, key: str
    ) -> None:
        self.key = key
        self.over = False
        self.connected = False
        self._limits = limits
        self._began = self._moved = self._tried = now
        self._octets = 0
        self._targets = list(targets)
        self._pledge = pledge
        self._registrar: socket.socket | None = None
        self._waiting: dict[socket.socket, bytes] = {}
        self._ended: set[socket.socket] = set()
        pledge.settimeout(0)
        self._dial(now)

    @property
    def sockets(self) -> dict[socket.socket, int]:
        """What to wait for at each socket."""
        wanted: dict[socket.socket, int] = {}
        if self._registrar is None:
            return wanted
        if not self.connected:
            return {self._registrar: selectors.EVENT_WRITE}
        for sock, other in ((self._pledge, self._registrar), (self._registrar, self._pledge)):
            events = selectors.EVENT_WRITE if self._waiting.get(sock) else 0
            if sock not in self._ended and not self._waiting.get(other):
                events |= selectors.EVENT_READ
            if events:
                wanted[sock] = events
        return wanted

    def tick(self, now: float) -> None:
        """Time passes: limits of time, and a registrar that does not answer."""
        if self.connected:
            idle = now - self._moved >= self._limits.idle_seconds
            self.over = self.over or idle or now - self._began >= self._limits.seconds
        elif now - self._tried >= self._limits.connect_seconds:
            self._dial(now)

    def ready(self, sock: socket.socket, events: int, now: float) -> None:
        """Something can be done at *sock*."""
        if self._registrar is None or self.over:
            return
        try:
            if not self.connected:
                self._established(now)
            else:
                self._carry(sock, events, now)
        except BlockingIOError:
            return
        except OSError:
            self.over = True

    def close(self) -> None:
        self._pledge.close()
        if self._registrar is not None:
            self._registrar.close()

    def _dial(self, now: float) -> None:
        """Begin to connect to the next registrar; over when there is none left."""
        if self._registrar is not None:
            self._registrar.close()
            self._registrar = None
        while self._targets:
            family, address = self._targets.pop(0)
            self._tried = now
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            except OSError:
                continue
            try:
                with suppress(BlockingIOError):
                    sock.connect(address)
            except OSError:
                sock.close()
                continue
            self._registrar = sock
            return
        self.over = True

    def _established(self, now: float) -> None:
        assert self._registrar is not None
        if self._registrar.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._dial(now)
            return
        self.connected = True
        self._moved = now

    def _carry(self, sock: socket.socket, events: int, now: float) -> None:
        assert self._registrar is not None
        other = self._pledge if sock is self._registrar else self._registrar
        if events & selectors.EVENT_WRITE and self._waiting.get(sock):
            sent = sock.send(self._waiting[sock])
            self._waiting[sock] = self._waiting[sock][sent:]
            self._moved = now
        if events & selectors.EVENT_READ and not self._waiting.get(other):
            data = sock.recv(BUFFER)
            self._octets += len(data)
            self._moved = now
            self._waiting[other] = data
            if not data:
                self._ended.add(sock)
        if sock in self._ended and not self._waiting.get(other):
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)
        done = len(self._ended) == 2 and not any(self._waiting.values())
        self.over = done or self._octets > self._limits.octets
