"""Counts what a TPM is asked: a proxy in front of swtpm that every process can use by its TCTI string.

It can also make swtpm as slow as a real chip (*latency*), and lose an answer as a bad bus would.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from holdfast_factory.tpm_commands import command_name

_HOST: Final = "127.0.0.1"
_HEADER: Final = 10  # tag, size, code: TPM 2.0 Library, Part 1, command and response header
_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """One TPM command that was answered: its name, how long it took, its response code (0: done), and when
    it came, in monotonic seconds of this host, which every process shares."""

    name: str
    milliseconds: float
    rc: int
    at: float


class TpmMeter:
    """A proxy on a free pair of loopback ports, in front of the swtpm at *upstream_port*.

    Without a port there is no TPM yet, and every connection is closed; see :meth:`move`. *latency* gives
    seconds to add for a command name; ``"*"`` stands for all others. Commands run one at a time, as on a
    chip. Use it in a ``with`` block, or call :meth:`close`.
    """

    def __init__(self, upstream_port: int | None, *, latency: Mapping[str, float] | None = None) -> None:
        self._upstream = upstream_port
        self._latency = dict(latency or {})
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._commands: list[Command] = []
        self._losses: list[bool | None] = []
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        data, control = _listening_pair()
        self.port: int = data.getsockname()[1]
        self._threads = [
            threading.Thread(target=self._accept, args=(data, self._serve), daemon=True),
            threading.Thread(target=self._accept, args=(control, self._pass_through), daemon=True),
        ]
        for listener, thread in zip((data, control), self._threads, strict=True):
            self._open.add(listener)
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def tcti(self) -> str:
        return f"swtpm:host={_HOST},port={self.port}"

    def take(self) -> tuple[Command, ...]:
        """The commands answered since the last call, oldest first."""
        with self._lock:
            taken, self._commands = tuple(self._commands), []
        return taken

    def move(self, upstream_port: int | None) -> None:
        """From now on the TPM is that at *upstream_port*, or there is none."""
        self._upstream = upstream_port

    def lose_next(self, *, executed: bool, after: int = 0) -> None:
        """Close the channel instead of answering the command that follows *after* others.

        *executed* says whether the TPM sees that command.
        """
        with self._lock:
            self._losses = [*[None] * after, executed]

    def close(self) -> None:
        """Close every connection and end the threads."""
        self._closed.set()
        with self._lock:
            sockets, threads = tuple(self._open), tuple(self._threads)
        for each in sockets:
            _hang_up(each)
        for thread in threads:
            thread.join(5)

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with listener:
            while not self._closed.is_set():
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=self._run, args=(client, serve), daemon=True)
                with self._lock:
                    self._threads = [t for t in self._threads if t.is_alive()]
                    self._open.add(client)
                    self._threads.append(thread)
                    thread.start()

    def _run(self, client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        # If either end hangs up, the client sees its channel closed, as without a proxy.
        with contextlib.suppress(OSError), client:
            serve(client)
        with self._lock:
            self._open.discard(client)

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not self._closed.is_set() and (command := _read_message(client)):
            with self._one_at_a_time:
                answer = self._ask(command)
            if not answer:
                return
            client.sendall(answer)

    def _ask(self, command: bytes) -> bytes:
        """The TPM's answer to *command*; empty if it is to be lost."""
        with self._lock:
            loss = self._losses.pop(0) if self._losses else None
        if loss is False:
            return b""
        name = command_name(int.from_bytes(command[6:10], "big"))
        start = time.monotonic()
        if (upstream := self._upstream) is None:
            return b""
        with socket.create_connection((_HOST, upstream)) as tpm:
            tpm.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tpm.sendall(command)
            answer = _read_message(tpm)
        if delay := self._latency.get(name, self._latency.get("*", 0.0)):
            self._closed.wait(delay)
        if not answer or loss:
            return b""
        spent = (time.monotonic() - start) * 1e3
        with self._lock:
            self._commands.append(Command(name, spent, int.from_bytes(answer[6:10], "big"), start))
        return answer

    def _pass_through(self, client: socket.socket) -> None:
        """The control channel is not counted: bytes go both ways unread."""
        if (upstream := self._upstream) is None:
            return
        with socket.create_connection((_HOST, upstream + 1)) as control:
            back = threading.Thread(target=_pump, args=(control, client), daemon=True)
            back.start()
            _pump(client, control)
            back.join()


def _listening_pair() -> tuple[socket.socket, socket.socket]:
    while True:
        data, control = socket.socket(), socket.socket()
        try:
            data.bind((_HOST, 0))
            control.bind((_HOST, data.getsockname()[1] + 1))
            data.listen(16)
            control.listen(16)
        except (OSError, OverflowError):
            data.close()
            control.close()
        else:
            return data, control


def _read_message(source: socket.socket) -> bytes:
    """One whole command or response by the size in its header; empty at the end or if it is not one."""
    message = b""
    wanted = _HEADER
    while len(message) < wanted:
        part = source.recv(wanted - len(message))
        if not part:
            return b""
        message += part
        if len(message) == _HEADER:
            wanted = int.from_bytes(message[2:6], "big")
            if not _HEADER <= wanted <= _LIMIT:
                return b""
    return message


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one end is gone; the other is told below
        while part := source.recv(4096):
            sink.sendall(part)
    _hang_up(sink)
    _hang_up(source)


def _hang_up(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected any more
        each.shutdown(socket.SHUT_RDWR)
