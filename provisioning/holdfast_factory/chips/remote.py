"""A TPM at the other end of a shell: SSH, or a serial console. A small program goes along, and does not stay.

Each batch of commands is one line there and one line back: a round trip, however many commands are in it.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import shlex
import subprocess
import termios
import time
import tty
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from holdfast.wire.errors import ConfigError, KeyStoreError, KeyStoreUnavailable

HELPER: Final = Path(__file__).with_name("helper.py")
READY, SHELL = b"HF1 ready", b"HF1 shell"
_GREETING: Final = b"\nHF1 bye\n\nprintf 'HF1 %s\\n' shell\n"
"""Sends away a helper that a station left when it died; a shell answers with :data:`SHELL`."""
_PIECE: Final = 400
"""Octets of the program a line: small shells take no more than a kilobyte at once."""
_LINE_LIMIT: Final = 64 * 1024
_MOST_ASKED: Final = 3
_SPEEDS: Final[Mapping[int, int]] = {
    9600: termios.B9600,
    19200: termios.B19200,
    38400: termios.B38400,
    57600: termios.B57600,
    115200: termios.B115200,
    230400: termios.B230400,
    460800: termios.B460800,
    921600: termios.B921600,
}


class Channel(Protocol):
    """Octets both ways. Both raise KeyStoreUnavailable when the other end is gone."""

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout: float) -> bytes:
        """What came within *timeout* seconds, empty if nothing did."""
        ...

    def close(self) -> None: ...


class ShellLink:
    """See :class:`~holdfast_factory.chips.dialogue.Link`. *channel* leads to the helper, or to a shell that
    starts it by *start*; *patience* is how long one answer may take, *starting* how long until the helper is
    there, both in seconds.

    ``round_trips`` counts batches, ``repeated`` how often one had to be sent again.
    """

    def __init__(
        self,
        channel: Channel,
        place: str,
        *,
        start: bytes = b"",
        patience: float = 30.0,
        starting: float = 30.0,
    ) -> None:
        self._channel = channel
        self._place = place
        self._patience = patience
        self._buffer = b""
        # So that a helper that somebody left there does not take our first question for his last.
        self._number = time.time_ns()
        self.round_trips = 0
        self.repeated = 0
        try:
            if not (self._typed(start, starting) if start else self._comes(READY, starting)):
                raise self._silent("no helper came up: is there a shell, and Python 3?")
        except KeyStoreUnavailable:
            channel.close()
            raise

    def exchange(self, batch: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._number += 1
        self.round_trips += 1
        name = b"%x" % self._number
        text = base64.b64encode(b"".join(batch))
        question = b"HF1 %s %08x %s\n" % (name, zlib.crc32(name + text), text)
        for attempt in range(_MOST_ASKED):
            self.repeated += attempt > 0
            self._channel.send(question)
            answer = self._wait(lambda line: _answer(line, name) is not None, self._patience)
            if answer is not None:
                return _split(_answer(answer, name) or b"", self._place)
        raise self._silent(f"no answer to {_MOST_ASKED} questions")

    def close(self) -> None:
        """Send the helper away. Idempotent."""
        try:
            self._channel.send(b"HF1 bye\n")
        except KeyStoreUnavailable:
            pass
        finally:
            self._channel.close()

    def _typed(self, start: bytes, starting: float) -> bool:
        """Greet a shell and type *start*; again, where a console swallowed some of it."""
        each = starting / (2 * _MOST_ASKED)
        for _ in range(_MOST_ASKED):
            self._channel.send(_GREETING)
            if self._comes(SHELL, each):
                self._channel.send(start)
                if self._comes(READY, each):
                    return True
        return False

    def _comes(self, end: bytes, patience: float) -> bool:
        return self._wait(lambda line: line.rstrip().endswith(end), patience) is not None

    def _wait(self, wanted: Callable[[bytes], bool], patience: float) -> bytes | None:
        """The next line that is *wanted*; None after *patience*. Others are passed over."""
        end = time.monotonic() + patience
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                if wanted(line):
                    return line
                continue
            if len(self._buffer) > _LINE_LIMIT:
                self._buffer = b""
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._buffer += self._channel.receive(left)

    def _silent(self, why: str) -> KeyStoreUnavailable:
        return KeyStoreUnavailable("factory.unit-silent", f"{self._place}: {why}")


def _answer(line: bytes, number: bytes) -> bytes | None:
    """The text of the answer to *number* in *line*, which may have something in front; None if it is none."""
    words = line[line.rfind(b"HF1 ") :].split()
    if len(words) not in (3, 4) or words[0] != b"HF1" or words[1] != number:
        return None
    text = words[3] if len(words) == 4 else b""
    return text if b"%08x" % zlib.crc32(number + text) == words[2] else None


def _split(text: bytes, place: str) -> tuple[bytes, ...]:
    """The answers in what the helper sent. Raises KeyStoreUnavailable for its complaint."""
    try:
        data = base64.b64decode(text.removeprefix(b"!"), validate=True)
    except binascii.Error as error:
        raise KeyStoreError("factory.unit-answer", f"{place}: {error}") from error
    if text.startswith(b"!"):
        raise KeyStoreUnavailable("key.tpm-unreachable", f"{place}: {data.decode(errors='replace')[:300]}")
    answers: list[bytes] = []
    while data:
        size = int.from_bytes(data[2:6], "big")
        if not 10 <= size <= len(data):
            raise KeyStoreError("factory.unit-answer", f"{place}: an answer of {size} octets")
        answers.append(data[:size])
        data = data[size:]
    return tuple(answers)


def program() -> bytes:
    """The helper, packed: base64 of its compressed text."""
    return base64.b64encode(zlib.compress(HELPER.read_bytes(), 9))


def command_line(tpm: str) -> str:
    """What a shell runs, where a line may be long."""
    packed = program().decode()
    return f"exec python3 -c {shlex.quote(_unpack(repr(packed)))} {shlex.quote(tpm)}"


def typed(tpm: str) -> bytes:
    """What is typed at a console, in lines that any shell takes."""
    packed = program().decode()
    pieces = (packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE))
    lines = ["h=", *(f"h=${{h}}{piece}" for piece in pieces)]
    unpack = shlex.quote(_unpack("sys.argv.pop()"))
    return "\n".join([*lines, f"python3 -c {unpack} {shlex.quote(tpm)} $h", ""]).encode()


def _unpack(packed: str) -> str:
    code = f"zlib.decompress(base64.b64decode({packed}))"
    return f'import base64,sys,zlib;exec(compile({code},"helper","exec"),{{"__name__":"__main__"}})'


class Descriptors:
    """A channel over two file descriptors; *process* is what is at its end, if we started it."""

    def __init__(
        self, reading: int, writing: int, place: str, process: subprocess.Popen[bytes] | None = None
    ):
        self._reading, self._writing = reading, writing
        self._place = place
        self._process = process
        self._closed = False

    def send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._writing, data) :]
        except OSError as error:
            raise self._gone(str(error)) from error

    def receive(self, timeout: float) -> bytes:
        try:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, timeout))
            if not ready:
                return b""
            data = os.read(self._reading, 65536)
        except OSError as error:
            raise self._gone(str(error)) from error
        if not data:
            raise self._gone("it hung up")
        return data

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._process is None:
            os.close(self._reading)
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _gone(self, why: str) -> KeyStoreUnavailable:
        return KeyStoreUnavailable("factory.unit-gone", f"{self._place}: {why}")


def over_ssh(host: str, tpm: str, *, config: str = "", port: str = "", patience: float = 30.0) -> ShellLink:
    """By the ``ssh`` of this machine, which never asks for anything. *config*: its configuration file."""
    place = f"ssh:{host}"
    if host.startswith("-"):
        raise ConfigError("factory.place", f"{host[:40]!r} is no host")
    options = [
        "-T",
        "-o",
        "BatchMode=yes",
        *(["-F", config] if config else []),
        *(["-p", port] if port else []),
    ]
    try:
        process = subprocess.Popen(  # noqa: S603 (no shell here; host and options come from the configuration)
            ["ssh", *options, "--", host, command_line(tpm)],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
    except OSError as error:
        raise KeyStoreUnavailable("factory.unit-gone", f"{place}: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    channel = Descriptors(process.stdout.fileno(), process.stdin.fileno(), place, process)
    return ShellLink(channel, place, patience=patience)


def over_serial(
    device: str, tpm: str, *, baud: int = 115200, patience: float = 30.0, starting: float = 30.0
) -> ShellLink:
    """By a shell that listens at a serial line: the console of an image for production."""
    place = f"serial:{device}"
    if baud not in _SPEEDS:
        raise ConfigError("factory.place", f"{baud} baud: one of {', '.join(map(str, _SPEEDS))}")
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[2] |= termios.CLOCAL | termios.CREAD
        settings[4] = settings[5] = _SPEEDS[baud]
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except (OSError, termios.error) as error:
        raise KeyStoreUnavailable("factory.unit-gone", f"{place}: {error}") from error
    channel = Descriptors(descriptor, descriptor, place)
    return ShellLink(channel, place, start=typed(tpm), patience=patience, starting=starting)
