"""A Varlink service (varlink.org) on a Unix socket: JSON objects with a NUL byte after each.

Whoever may connect may also be slow, many, or hostile. So everything is bounded: the bytes of a message, the
connections, the time for half a message or for an answer that nobody reads. A connection is served one call
at a time, and the next call is not read before the answer to the last one is on its way: what a client does
not take piles up at the client. No client waits for another.
"""

from __future__ import annotations

import json
import math
import os
import select
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

MAX_MESSAGE: Final = 16 << 10
MAX_CONNECTIONS: Final = 64
MESSAGE_SECONDS: Final = 10.0
"""For the rest of a message that was begun, and for taking an answer."""

IDLE_SECONDS: Final = 300.0
"""A connection on which nothing was asked for so long is closed."""

ACCEPTS_A_TURN: Final = 16
MESSAGES_A_TURN: Final = 8
_MOST_GROUPS: Final = 256  # what Python's getsockopt has room for
_SO_PEERGROUPS: Final = 59

SERVICE: Final = "org.varlink.service"

Json = Mapping[str, Any]
NOTHING: Final[Json] = {}
Selector = selectors.BaseSelector


class Peer(NamedTuple):
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    groups: frozenset[int]


class Call:
    """One call of a client. Exactly one of :meth:`reply` (without *continues*) and :meth:`error` ends it."""

    def __init__(
        self, connection: Connection, method: str, parameters: Json, *, more: bool, oneway: bool
    ) -> None:
        """What the client sent; *more*: it takes several answers, *oneway*: it takes none."""
        self._connection = connection
        self.method = method
        self.parameters = parameters
        self.more = more
        self.oneway = oneway
        self.ended = False
        self.on_close: Callable[[], None] | None = None

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    @property
    def clear(self) -> bool:
        """Whether the client took everything that it was told: only then should it be told more."""
        return not self._connection.unsent

    def reply(self, parameters: Json, *, continues: bool = False) -> None:
        """Answer; with *continues* more answers follow."""
        self._send(
            {"parameters": parameters, **({"continues": True} if continues else {})}, last=not continues
        )

    def error(self, name: str, parameters: Json = NOTHING) -> None:
        """Answer with an error of that full name."""
        self._send({"error": name, "parameters": parameters}, last=True)

    def invalid(self, parameter: str) -> None:
        """Answer that *parameter* is missing or wrong."""
        self.error(f"{SERVICE}.InvalidParameter", {"parameter": parameter})

    def close(self) -> None:
        """The client is gone, or is sent away."""
        self.ended = True
        if self.on_close is not None:
            self.on_close()

    def _send(self, message: Json, *, last: bool) -> None:
        if self.ended:
            return
        self.ended = last
        if not self.oneway:
            self._connection.unsent += json.dumps(message).encode() + b"\0"


Handler = Callable[[Call], None]


class Connection:
    """One client: what it sent and what it has not yet taken."""

    def __init__(self, sock: socket.socket, peer: Peer, now: float) -> None:
        self.socket = sock
        self.peer = peer
        self.received = bytearray()
        self.unsent = bytearray()
        self.call: Call | None = None
        self.half_closed = False
        self.active_at = now
        self.since = now
        """When the client last did what it has to do next: send the rest, or take the answer."""

    def deadline(self) -> float:
        """When this connection is closed if nothing more happens on it."""
        if self.unsent:
            return self.since + MESSAGE_SECONDS
        if self.call is not None:
            return math.inf
        if self.received:
            return self.since + MESSAGE_SECONDS
        return self.active_at + IDLE_SECONDS

    def take(self, now: float) -> bool:
        """Read once; False when the client is gone or sends too much."""
        try:
            data = self.socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            self.half_closed = True
            return (self.call is not None or bool(self.unsent)) and not self._hung_up()
        if not self.received:
            self.since = now
        self.received += data
        return len(self.received) <= 2 * MAX_MESSAGE

    def _hung_up(self) -> bool:
        """Whether the client does not even listen any more. A selector does not tell this from data."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))

    def give(self, now: float) -> bool:
        """Send what the client takes; False when it is gone."""
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.unsent[:sent]
            self.since = now
        return True

    def next_message(self) -> bytes | None:
        """The next whole message. Raises ValueError where the client sends a longer one than it may."""
        end = self.received.find(b"\0")
        if end > MAX_MESSAGE or (end < 0 and len(self.received) > MAX_MESSAGE):
            raise ValueError("a message too long")
        if end < 0:
            return None
        message = bytes(self.received[:end])
        del self.received[: end + 1]
        return message


class Server:
    """Serves *handlers* (full method name -> handler) to everyone who connects to *listener*.

    It is one part of a loop: the loop calls what stands as ``data`` with each key of *selector*, and
    :meth:`tick` whenever it comes round.
    """

    def __init__(
        self,
        listener: socket.socket,
        selector: Selector,
        handlers: Mapping[str, Handler],
        clock: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._handlers = handlers
        self._clock = clock
        self._connections: dict[int, Connection] = {}
        self._ready: dict[int, Connection] = {}
        listener.settimeout(0)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def next_at(self) -> float:
        """When :meth:`tick` must be called at the latest."""
        if self._ready:
            return -math.inf
        return min((c.deadline() for c in self._connections.values()), default=math.inf)

    def tick(self, now: float) -> None:
        """Serve calls that wait, send answers that others gave meanwhile, end what took too long."""
        ready, self._ready = self._ready, {}
        for connection in ready.values():
            self._serve(connection, now)
        for connection in tuple(self._connections.values()):
            if connection.unsent or connection.call is not None:
                self._go_on(connection, now)
            if now >= connection.deadline():
                self._close(connection)

    def close(self) -> None:
        """Send everyone away. The listener stays open: it may belong to the service manager."""
        self._selector.unregister(self._listener)
        for connection in tuple(self._connections.values()):
            self._close(connection)

    # --- connections ---------------------------------------------------------------------------------

    def _accept(self, _mask: int) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # nobody there; or no descriptor left, and somebody will go
            if len(self._connections) >= MAX_CONNECTIONS:
                self._close(self._least_missed())
            now = self._clock()
            sock.settimeout(0)
            try:
                connection = Connection(sock, peer_of(sock), now)
            except OSError:
                sock.close()
                continue
            self._connections[sock.fileno()] = connection
            self._selector.register(
                sock, selectors.EVENT_READ, lambda mask, c=connection: self._happened(c, mask)
            )

    def _least_missed(self) -> Connection:
        """Of the user with most connections the one that was silent longest: nobody crowds out others."""
        counts: dict[int, int] = {}
        for c in self._connections.values():
            counts[c.peer.uid] = counts.get(c.peer.uid, 0) + 1
        return min(self._connections.values(), key=lambda c: (-counts[c.peer.uid], c.active_at))

    def _close(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        if self._connections.pop(descriptor, None) is None:
            return
        self._ready.pop(descriptor, None)
        if descriptor in self._selector.get_map():
            self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.call is not None:
            connection.call.close()

    def _happened(self, connection: Connection, mask: int) -> None:
        now = self._clock()
        alive = connection.take(now) if mask & selectors.EVENT_READ else True
        if alive:
            self._serve(connection, now)
        else:
            self._close(connection)

    def _serve(self, connection: Connection, now: float) -> None:
        """Answer what was asked, up to MESSAGES_A_TURN calls."""
        for _ in range(MESSAGES_A_TURN):
            if not self._go_on(connection, now) or connection.call is not None or connection.unsent:
                return
            try:
                message = connection.next_message()
                if message is None:
                    return
                connection.active_at = connection.since = now
                connection.call = self._parse(connection, message)
            except ValueError:
                self._close(connection)  # no Varlink is spoken here
                return
            self._handlers.get(connection.call.method, _no_method)(connection.call)
        if self._go_on(connection, now) and connection.received:
            self._ready[connection.socket.fileno()] = connection

    def _go_on(self, connection: Connection, now: float) -> bool:
        """Send, forget a call that has ended, listen to what matters next. False if the client is gone."""
        if connection.call is not None and connection.call.ended:
            connection.call = None
        waits = bool(connection.unsent)
        if not connection.give(now) or (
            connection.half_closed and connection.call is None and not connection.unsent
        ):
            self._close(connection)
            return False
        self._listen(connection)
        if waits and not connection.unsent and connection.received:
            self._ready[connection.socket.fileno()] = connection
        return True

    def _listen(self, connection: Connection) -> None:
        """Hear of what the connection can go on with: room to send, or the next bytes."""
        full = connection.half_closed or len(connection.received) > MAX_MESSAGE
        wanted = selectors.EVENT_WRITE if connection.unsent else 0 if full else selectors.EVENT_READ
        known = self._selector.get_map().get(connection.socket.fileno())
        if wanted == (known.events if known else 0):
            return
        callback = known.data if known else lambda mask: self._happened(connection, mask)
        if known:
            self._selector.unregister(connection.socket)
        if wanted:
            self._selector.register(connection.socket, wanted, callback)

    def _parse(self, connection: Connection, message: bytes) -> Call:
        """The call in *message*. Raises ValueError."""
        try:
            told = json.loads(message)
        except RecursionError:
            raise ValueError("nested too deep") from None
        match told:
            case {"method": str(method)} if not told.get("upgrade"):
                parameters = told.get("parameters") or {}
                if isinstance(parameters, dict):
                    more, oneway = told.get("more") is True, told.get("oneway") is True
                    return Call(connection, method, parameters, more=more, oneway=oneway)
        raise ValueError("no call")


def _no_method(call: Call) -> None:
    call.error(f"{SERVICE}.MethodNotFound", {"method": call.method})


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, with all groups. Raises OSError."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    groups = struct.Struct("I")
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, groups.size * _MOST_GROUPS)
    except OSError:
        data = b""  # more groups than that: only the first counts
    return Peer(pid, uid, frozenset((gid, *(group for (group,) in groups.iter_unpack(data)))))


def inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the service manager hands over (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return []
    found = []
    for descriptor in range(3, 3 + count):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
        found.append(socket.socket(fileno=descriptor))
    return found
