"""To whom the proxy leads: registrars that were named, or else found on the links that it does not serve."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from holdfast.host.joinproxy.circuit import Target

REFRESH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 2.0
MOST_TARGETS: Final = 8

Find = Callable[[], tuple[str, ...]]
"""Endpoints ``host:port``, best first. May take seconds."""


class Upstream:
    """Looks in a thread of its own, because names and searches take time that circuits do not have."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._end = threading.Event()
        self._targets: tuple[Target, ...] = ()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where to connect, best first; nothing while nobody is known."""
        return self._targets

    def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            found = tuple(t for endpoint in self._find() for t in resolved(endpoint))
            if found:
                self._targets = found[:MOST_TARGETS]
            pause = REFRESH_SECONDS if found else min(REFRESH_SECONDS, pause * 2)
            if self._end.wait(pause):
                return


def resolved(endpoint: str) -> tuple[Target, ...]:
    """The addresses of ``host:port``; none if it has none now."""
    parts = urlsplit(f"//{endpoint}")
    try:
        answers = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple((int(family), address) for family, _, _, _, address in answers)
