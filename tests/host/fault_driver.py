"""Does one operation of the stores in a forked child, so that strace can make one of its system calls fail.

``strace`` counts calls for each process anew and spoils the call number WHEN, always. A child that shall
fail at the call number *k* of its operation first makes WHEN - *k* calls of that name that do nothing. So one
strace serves hundreds of fault points, and none costs the start of an interpreter. Orders and answers come
over a socket, because its system calls are none of those that are spoiled.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509

from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.life.record import decode
from holdfast.wire.errors import StateError

DONE, REFUSED, BROKEN = 0, 3, 70
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


def commit(root: Path, order: dict[str, Any]) -> None:
    """The record in *order* becomes the current one."""
    StateStore(root / "state").commit(decode(order["record"].encode()))


def deploy(root: Path, order: dict[str, Any]) -> None:
    """The generation in *order* becomes current."""
    chain = tuple(x509.load_pem_x509_certificates(order["chain"].encode()))
    anchors = tuple(x509.load_pem_x509_certificates(order["anchors"].encode()))
    files = CredentialFiles(root / "identities", "ldevid")
    files.stage(order["generation"], chain, anchors, order["key"].encode())
    files.promote(order["generation"])


OPERATIONS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "commit": commit,
    "deploy": deploy,
    "redeploy": deploy,  # the current generation once more, with other anchors
}


def child(order: dict[str, Any], libc: ctypes.CDLL) -> int:
    """The operation after the idle calls; the exit status tells how it ended."""
    operation = OPERATIONS[order["operation"]]
    root = Path(order["root"])
    for _ in range(order["idle"]):
        libc.syscall(order["number"], -1, 0, 0, 0, 0)
    libc.syscall(order["mark"], -1, 0, 0, 0, 0)
    try:
        operation(root, order)
    except StateError:
        return REFUSED
    except BaseException:  # noqa: BLE001 - told by the exit status
        traceback.print_exc()
        return BROKEN
    libc.syscall(order["mark"], -1, 0, 0, 0, 0)
    return DONE


def serve(connection: socket.socket) -> None:
    """One order, one child, one answer: its exit status."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    connection.send(b"ready")
    while message := connection.recv(1 << 16):
        order = json.loads(message)
        pid = os.fork()
        if pid == 0:
            os._exit(child(order, libc))
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
