"""Tell the service manager how we are (sd_notify(3)). Nothing that goes wrong here ever stops the agent.

Standard library only: the resident process uses this. The ``sdnotify`` package would do the same on a socket
that blocks for as long as the manager does not read.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

SEND_SECONDS: Final = 1.0
"""A manager that does not read for so long misses a message; a later one says the same or more."""

MICROSECONDS: Final = 1_000_000


class Notifier:
    """The way to the service manager, or to nobody where there is none."""

    def __init__(self, address: str | None) -> None:
        """*address*: the value of ``$NOTIFY_SOCKET``, where ``@`` begins an abstract name."""
        self._socket: socket.socket | None = None
        if not address:
            return
        target = "\0" + address[1:] if address.startswith("@") else address
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            channel.settimeout(SEND_SECONDS)
            channel.connect(target)
        except (OSError, ValueError):
            channel.close()
            return
        self._socket = channel

    def tell(self, **values: str | int) -> None:
        """One message; each keyword is an assignment: ``tell(READY=1, STATUS="in words")``."""
        if self._socket is None:
            return
        lines = "\n".join(f"{name}={_one_line(value)}" for name, value in values.items())
        try:
            self._socket.send(lines.encode(errors="replace"))
        except OSError:
            return

    def close(self) -> None:
        """Stop telling; closing twice is no error."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def monotonic_usec() -> int:
    """What ``RELOADING=1`` must be told with, so that the manager can put messages in order."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def watchdog_seconds(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """After how many seconds without ``WATCHDOG=1`` the manager acts; None if it does not."""
    if environ.get("WATCHDOG_PID", str(pid or os.getpid())) != str(pid or os.getpid()):
        return None
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / MICROSECONDS if microseconds > 0 else None


def _one_line(value: str | int) -> str:
    """A line break would begin another assignment."""
    return "".join(c if c.isprintable() else " " for c in str(value))
