"""The Varlink service under clients that are slow, many, wrong or hostile: no one waits for another, and
nothing grows. The test turns the loop by hand, and its clock stands still unless it is moved."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.resident.varlink import (
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    MAX_MESSAGE,
    MESSAGE_SECONDS,
    SERVICE,
    Call,
    Server,
    inherited,
    peer_of,
)

PATIENCE = 60.0
BIG = "x" * 40_000
FLOOD = 2_000_000


class Stage:
    """A server, its clock, and the calls that wait for an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(256)
        self.waiting: list[Call] = []
        self.server = Server(
            self.listener,
            self.selector,
            {
                "x.Echo": lambda call: call.reply(call.parameters),
                "x.Big": lambda call: call.reply({"big": BIG}),
                "x.Flood": lambda call: call.reply({"big": "x" * FLOOD}),
                "x.Wait": self.waiting.append,
            },
            lambda: self.now,
        )
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(self.path))
        client.setblocking(False)
        self.clients.append(client)
        self.turn()
        return client

    def turn(self) -> None:
        """One turn, as the daemon's loop does it."""
        self.server.tick(self.now)
        for key, mask in self.selector.select(0):
            if self.selector.get_map().get(key.fd) is key:
                key.data(mask)

    def replies(self, client: socket.socket, count: int) -> list[dict[str, Any]]:
        """The next *count* replies to *client*."""
        data = b""
        end = time.monotonic() + PATIENCE
        while data.count(b"\0") < count:
            assert time.monotonic() < end, f"{data.count(bytes(1))} of {count} replies came"
            self.turn()
            try:
                received = client.recv(1 << 16)
            except BlockingIOError:
                continue
            assert received, "sent away"
            data += received
        return [json.loads(message) for message in data.split(b"\0")[:-1]]

    def gone(self, client: socket.socket) -> bool:
        """Whether *client* was sent away."""
        for _ in range(20):
            self.turn()
        try:
            while client.recv(1 << 16):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return True

    @property
    def connections(self) -> int:
        return len(self.server._connections)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "socket")
    yield stage
    stage.server.close()
    for client in stage.clients:
        client.close()
    stage.listener.close()
    stage.selector.close()


def message(method: str, parameters: Any = None, **more: Any) -> bytes:
    return json.dumps({"method": method, "parameters": parameters or {}, **more}).encode() + b"\0"


def test_a_call_is_answered_and_the_next_ones_in_their_order(stage: Stage) -> None:
    client = stage.connect()
    client.send(b"".join(message("x.Echo", {"n": n}) for n in range(50)))
    assert [r["parameters"]["n"] for r in stage.replies(client, 50)] == list(range(50))


def test_a_message_may_come_byte_by_byte(stage: Stage) -> None:
    client = stage.connect()
    for byte in message("x.Echo", {"n": 1}):
        client.send(bytes([byte]))
        stage.turn()
    assert stage.replies(client, 1) == [{"parameters": {"n": 1}}]


def test_who_wants_no_answer_gets_none(stage: Stage) -> None:
    client = stage.connect()
    client.send(message("x.Echo", {"n": 1}, oneway=True) + message("x.Echo", {"n": 2}))
    assert stage.replies(client, 1) == [{"parameters": {"n": 2}}]


def test_an_unknown_method_is_an_error_and_no_reason_to_part(stage: Stage) -> None:
    client = stage.connect()
    client.send(message("x.No") + message("x.Echo"))
    refused, echo = stage.replies(client, 2)
    assert refused == {"error": f"{SERVICE}.MethodNotFound", "parameters": {"method": "x.No"}}
    assert echo == {"parameters": {}}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"\xff\xfe\0",
        b"[]\0",
        b"{}\0",
        b'{"method": 1}\0',
        b'{"method": "x.Echo", "parameters": []}\0'.replace(b"[]", b"[1]"),
        b'{"method": "x.Echo", "upgrade": true}\0',
        b"[" * 15000 + b"\0",
        b"9" * 15000 + b"\0",
    ],
)
def test_garbage_ends_the_connection_and_no_other(stage: Stage, garbage: bytes) -> None:
    client, other = stage.connect(), stage.connect()
    client.send(garbage)
    assert stage.gone(client)
    other.send(message("x.Echo"))
    assert stage.replies(other, 1) == [{"parameters": {}}]


def test_a_message_without_end_is_cut_off_before_it_fills_the_memory(stage: Stage) -> None:
    client = stage.connect()
    sent = flood(stage, client)
    for connection in stage.server._connections.values():
        assert len(connection.received) <= 2 * MAX_MESSAGE
    assert sent < 2_000_000


def flood(stage: Stage, client: socket.socket) -> int:
    """How many bytes *client* could send before it was sent away."""
    sent = 0
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            sent += client.send(b"x" * 65536)
        except BlockingIOError:
            stage.turn()
        except BrokenPipeError:
            return sent
    pytest.fail("it may send for ever")


def test_a_message_of_the_longest_length_passes_and_a_longer_one_does_not(stage: Stage) -> None:
    frame = len(message("x.Echo", {"t": ""})) - 1
    for length, passes in ((MAX_MESSAGE - frame, True), (MAX_MESSAGE - frame + 1, False)):
        client = stage.connect()
        client.send(message("x.Echo", {"t": "y" * length}))
        if passes:
            assert stage.replies(client, 1)[0]["parameters"]["t"] == "y" * length
        else:
            assert stage.gone(client)


def test_half_a_message_is_waited_for_only_so_long(stage: Stage) -> None:
    client = stage.connect()
    client.send(b'{"method"')
    stage.turn()
    stage.now += MESSAGE_SECONDS - 1
    client.send(b": ")  # a byte now and then buys no time
    assert not stage.gone(client)
    assert stage.server.next_at() == 1000.0 + MESSAGE_SECONDS
    stage.now += 1
    assert stage.gone(client)


def test_an_answer_that_nobody_takes_holds_back_that_client_alone(stage: Stage) -> None:
    greedy, other = stage.connect(), stage.connect()
    greedy.send(message("x.Flood") * 100)
    for _ in range(50):
        stage.turn()
    (unsent,) = [len(c.unsent) for c in stage.server._connections.values() if c.unsent]
    assert unsent <= FLOOD + 100, "one answer, not a hundred"
    other.send(message("x.Echo"))
    assert stage.replies(other, 1) == [{"parameters": {}}]
    stage.now += MESSAGE_SECONDS
    assert stage.gone(greedy)
    assert not stage.gone(other)


def test_a_slow_reader_gets_everything_in_the_end(stage: Stage) -> None:
    client = stage.connect()
    client.send(message("x.Big") * 20)
    assert [r["parameters"]["big"] for r in stage.replies(client, 20)] == [BIG] * 20


def test_silent_clients_are_sent_away_in_the_end(stage: Stage) -> None:
    client = stage.connect()
    stage.now += IDLE_SECONDS - 1
    assert not stage.gone(client)
    stage.now += 1
    assert stage.gone(client)
    assert stage.connections == 0


def test_a_call_that_waits_keeps_its_connection_and_is_told_of_its_end(stage: Stage) -> None:
    client = stage.connect()
    client.send(message("x.Wait", more=True) + message("x.Echo"))
    stage.turn()
    stage.turn()
    (call,) = stage.waiting
    stage.now += 10 * IDLE_SECONDS
    call.reply({"n": 1}, continues=True)
    assert stage.replies(client, 1) == [{"parameters": {"n": 1}, "continues": True}]
    call.reply({"n": 2})
    assert stage.replies(client, 2) == [{"parameters": {"n": 2}}, {"parameters": {}}]
    call.reply({"n": 3})
    stage.turn()
    assert not stage.gone(client)


def test_who_goes_while_a_call_waits_is_forgotten(stage: Stage) -> None:
    told = []
    client = stage.connect()
    client.send(message("x.Wait"))
    stage.turn()
    stage.turn()
    (call,) = stage.waiting
    call.on_close = lambda: told.append("gone")
    client.close()
    for _ in range(5):
        stage.turn()
    call.reply({})
    for _ in range(5):
        stage.turn()
    assert told == ["gone"]
    assert stage.connections == 0


def test_who_says_no_more_is_still_answered(stage: Stage) -> None:
    client = stage.connect()
    client.send(message("x.Wait"))
    client.shutdown(socket.SHUT_WR)
    for _ in range(3):
        stage.turn()
    (call,) = stage.waiting
    assert not stage.selector.select(0), "half closed, and the loop can rest"
    call.reply({"n": 1})
    assert stage.replies(client, 1) == [{"parameters": {"n": 1}}]
    assert stage.gone(client)
    assert stage.connections == 0


def test_more_clients_than_there_is_room_for_push_out_the_most_silent(stage: Stage) -> None:
    first = stage.connect()
    for _ in range(MAX_CONNECTIONS - 1):
        stage.now += 1
        stage.connect()
    stage.now += 1
    first.send(message("x.Echo"))
    stage.replies(first, 1)  # so the second is the one that was silent longest
    second = stage.clients[1]
    stage.connect()
    assert stage.connections == MAX_CONNECTIONS
    assert stage.gone(second)
    assert not stage.gone(first)


def test_a_crowd_of_one_user_pushes_out_nobody_else(stage: Stage) -> None:
    mine = stage.connect()
    stage.turn()
    (connection,) = stage.server._connections.values()
    connection.peer = connection.peer._replace(uid=4711)
    for _ in range(MAX_CONNECTIONS + 10):
        stage.now += 1
        stage.connect()
    assert stage.connections == MAX_CONNECTIONS
    mine.send(message("x.Echo"))
    assert stage.replies(mine, 1) == [{"parameters": {}}]


def test_one_client_that_asks_without_end_does_not_starve_another(stage: Stage) -> None:
    greedy, other = stage.connect(), stage.connect()
    greedy.send(message("x.Echo") * 300)
    other.send(message("x.Echo", {"n": 1}))
    turns = 0
    while True:
        stage.turn()
        turns += 1
        try:
            assert other.recv(4096) == b'{"parameters": {"n": 1}}\0'
            break
        except BlockingIOError:
            assert turns < 5


def test_the_kernel_says_who_asks(stage: Stage) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert {os.getgid(), *os.getgroups()} <= peer.groups


def test_the_kernel_tells_the_other_groups_as_well(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may start a process with groups of its choice")
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(stage.path)]
    groups = list(range(5000, 5200))
    with subprocess.Popen(command, stdin=subprocess.PIPE, extra_groups=groups) as client:
        end = time.monotonic() + PATIENCE
        while not stage.connections and time.monotonic() < end:
            stage.turn()
        (connection,) = stage.server._connections.values()
        assert set(groups) <= connection.peer.groups
        client.communicate()


def test_sockets_of_the_service_manager_are_for_the_process_that_it_named() -> None:
    assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert inherited({"LISTEN_FDS": "1"}) == []
    assert inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}) == []
