"""Runs the agent's command line in forked children and kills one where it is told to.

A process of its own without threads, so that forking is sound and each run costs no imports. It reads one
JSON object a line: ``{"argv": [...], "kill_at": n, "log": path}``; the child raises SIGKILL against itself at
its *n*-th event (0: never) and writes the events' names to *log*. The answer is the child's wait status.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from holdfast.cli.main import main
from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.host.transport import SocketLink
from holdfast.keys import pkcs11_objects
from holdfast.keys.key_files import KeyFiles
from holdfast.keys.tpm import TpmStore


class Countdown:
    """Counts events; at the one that it was made for, the process dies without a word."""

    def __init__(self, kill_at: int, log: Path) -> None:
        self._left = kill_at
        self._log = log.open("a", buffering=1)

    def __call__(self, name: str) -> None:
        self._log.write(name + "\n")
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type | ModuleType, method: str, event: Callable[[str], None]) -> None:
    """Make *method* an event before and after it does its work."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        event(f"before {method}")
        result = original(*args, **kwargs)
        event(f"after {method}")
        return result

    setattr(owner, method, wrapped)


def instrument(event: Callable[[str], None]) -> None:
    """Every commit point, every message, and every change to keys and files."""
    around(StateStore, "commit", event)
    around(TpmStore, "generate", event)
    around(TpmStore, "destroy", event)
    around(pkcs11_objects, "_make", event)  # between the destruction of what was there and the new pair
    around(pkcs11_objects, "remove", event)  # between the objects of one key
    around(pkcs11_objects, "put_certificate", event)
    around(KeyFiles, "write", event)  # between the making of a wrapped key and its file
    around(CredentialFiles, "stage", event)
    around(CredentialFiles, "promote", event)
    original = SocketLink.tell

    def tell(self: SocketLink, name: str) -> None:
        event(f"network {name}")
        original(self, name)

    SocketLink.tell = tell  # type: ignore[method-assign]


def child(order: dict[str, Any]) -> int:
    """One run of the command line."""
    instrument(Countdown(order["kill_at"], Path(order["log"])))
    with Path(order["output"]).open("w") as output, contextlib.redirect_stdout(output):
        return main(order["argv"])


def serve() -> None:
    """One order a line, one answer a line, until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = child(order)
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, wait_status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(wait_status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
