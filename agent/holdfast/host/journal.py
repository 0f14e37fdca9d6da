"""Events for a person and for programs: structured fields in the journal, one line on a terminal.

The journal's native protocol (systemd's "Journal Native Protocol"): one datagram of fields, or a sealed
file where that is too large. Standard library only: the resident process uses this. A log that cannot be
written is no reason to stop.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, TextIO

SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "holdfastd"

ERROR: Final = 3
WARNING: Final = 4
NOTICE: Final = 5
INFO: Final = 6

MAX_VALUE: Final = 1 << 20
_LARGEST_DATAGRAM: Final = 128 << 10
_SEALS: Final = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE
_F_ADD_SEALS: Final = 1033


class Message(NamedTuple):
    """A kind of event. ``id`` is stable: the catalog explains it, and programs look for it."""

    id: str
    priority: int


class Log(Protocol):
    """Where events go. Field names are as the journal wants them: A-Z, 0-9 and ``_``."""

    def event(self, message: Message, text: str, fields: Mapping[str, str] = ...) -> None: ...


class JournalLog:
    """Events as structured entries. *address* is the journal's socket."""

    def __init__(self, address: str = SOCKET, identifier: str = IDENTIFIER) -> None:
        self._address = address
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(1.0)

    def event(self, message: Message, text: str, fields: Mapping[str, str] = {}) -> None:
        """Send one entry; fields that are empty are left out."""
        entry = encode(
            {
                "MESSAGE": text,
                "MESSAGE_ID": message.id,
                "PRIORITY": str(message.priority),
                "SYSLOG_IDENTIFIER": self._identifier,
                **fields,
            }
        )
        try:
            if len(entry) <= _LARGEST_DATAGRAM:
                self._socket.sendto(entry, self._address)
            else:
                self._send_file(entry)
        except OSError:
            return

    def _send_file(self, entry: bytes) -> None:
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(entry)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEALS)
            rights = array.array("i", [descriptor])
            self._socket.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, self._address)
        finally:
            os.close(descriptor)


class TerminalLog:
    """Events as lines with the time of day."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def event(self, message: Message, text: str, fields: Mapping[str, str] = {}) -> None:  # noqa: ARG002
        """Write one line; what only programs want (``HOLDFAST_...``) is in the text already."""
        mark = "! " if message.priority <= WARNING else ""
        printable = "".join(c if c.isprintable() else " " for c in text)
        line = f"{time.strftime('%H:%M:%S')} {mark}{printable}\n"
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):
            return


def log_for(environ: Mapping[str, str], stream: TextIO = sys.stderr) -> Log:
    """The journal if *stream* leads there anyway (``$JOURNAL_STREAM``), else *stream* itself."""
    return JournalLog() if leads_to_journal(environ, stream) else TerminalLog(stream)


def leads_to_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether *stream* is the very socket that the service manager connected to the journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encode(fields: Mapping[str, str]) -> bytes:
    """*fields* in the native protocol: ``NAME=value``, or with a length where the value has several lines."""
    lines: list[bytes] = []
    for name, value in fields.items():
        data = value.encode(errors="replace")[:MAX_VALUE]
        if not data:
            continue
        if b"\n" in data:
            lines.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            lines.append(name.encode() + b"=" + data + b"\n")
    return b"".join(lines)
