"""The loop of the join proxy: listeners, circuits and announcements in one thread, all of them bounded."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from holdfast.host.discovery.interfaces import Interface
from holdfast.host.joinproxy.allowance import Ledger, ProxyLimits
from holdfast.host.joinproxy.announcer import Announcer
from holdfast.host.joinproxy.circuit import Circuit, Target
from holdfast.wire.model import RandomBytes

BEAT: Final = 0.5
_BACKLOG: Final = 32
_ACCEPT_AT_ONCE: Final = 16


class JoinProxy:
    """Serves *interfaces*. ``targets`` are asked for at each connection; while there are none, nothing is
    announced and nobody is let in. Raises OSError where an interface cannot be served."""

    def __init__(
        self,
        interfaces: Sequence[Interface],
        port: int,
        targets: Callable[[], Sequence[Target]],
        limits: ProxyLimits,
        *,
        random: RandomBytes,
        monotonic: Callable[[], float],
    ) -> None:
        self._targets = targets
        self._limits = limits
        self._monotonic = monotonic
        self.ledger = Ledger(limits)
        self.served = 0
        self._selector = selectors.DefaultSelector()
        self._circuits: dict[Circuit, dict[socket.socket, int]] = {}
        self._listeners: list[socket.socket] = []
        self._announcers: list[Announcer] = []
        try:
            for each in interfaces:
                listener = _listener(each, port)
                self._listeners.append(listener)
                announcer = Announcer(each, listener.getsockname()[1], random)
                self._announcers.append(announcer)
                self._selector.register(listener, selectors.EVENT_READ, None)
                for sock, hear in announcer.sockets.items():
                    self._selector.register(sock, selectors.EVENT_READ, hear)
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(each.getsockname()[1] for each in self._listeners)

    def turn(self, patience: float = BEAT) -> None:
        """Wait for at most *patience* seconds, and do what is to be done."""
        ready = self._selector.select(patience)
        now = self._monotonic()
        for key, events in ready:
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if key.data is None:
                self._accept(sock, now)
            elif isinstance(key.data, Circuit):
                key.data.ready(sock, events, now)
            else:
                key.data(now)
        for circuit in tuple(self._circuits):
            circuit.tick(now)
            self._follow(circuit)
        if self._targets():
            for announcer in self._announcers:
                announcer.tick(now)

    def close(self) -> None:
        """End everything, and take the announcements back."""
        for circuit in tuple(self._circuits):
            circuit.over = True
            self._follow(circuit)
        for announcer in self._announcers:
            announcer.close()
        for listener in self._listeners:
            listener.close()
        self._selector.close()

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                pledge, address = listener.accept()
            except OSError:
                return
            targets = self._targets()
            key = self.ledger.admit(address[0], now) if targets else None
            if key is None:
                _reset(pledge)
                continue
            self.served += 1
            circuit = Circuit(pledge, targets, self._limits, now, key)
            self._circuits[circuit] = {}
            self._follow(circuit)

    def _follow(self, circuit: Circuit) -> None:
        """Wait for what *circuit* waits for now; let it go when it is over."""
        known = self._circuits[circuit]
        wanted: dict[socket.socket, int] = {} if circuit.over else circuit.sockets
        for sock in known.keys() - wanted.keys():
            with suppress(KeyError, ValueError):
                self._selector.unregister(sock)
        for sock, events in wanted.items():
            if sock not in known:
                self._selector.register(sock, events, circuit)
            elif known[sock] != events:
                self._selector.modify(sock, events, circuit)
        self._circuits[circuit] = wanted
        if circuit.over:
            del self._circuits[circuit]
            circuit.close()
            self.ledger.release(circuit.key)


def _listener(interface: Interface, port: int) -> socket.socket:
    """Accepts on *interface* alone: a proxy for one link is none for another."""
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::", port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _reset(sock: socket.socket) -> None:
    """Close so that the peer knows at once, and nothing of it stays with the kernel."""
    linger: Any = b"\1\0\0\0\0\0\0\0"
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()
