"""Run as a service's first step, under that service's own confinement: what may this process do?

Prints one JSON object; an entry that is "" was allowed, else the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CLONE_NEWUSER: Final = 0x10000000


def refused(what: Callable[[], Any]) -> str:
    """The name of the error that *what* meets; "" if it meets none."""
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def family(number: int, kind: int) -> str:
    return refused(lambda: socket.socket(number, kind).close())


def writable() -> None:
    """Whose files they are matters not: root's are nobody else's to write anyway."""
    if os.statvfs("/etc").f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "read-only")


def unshare() -> None:
    """unshare(2), which the os module has from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def main() -> None:
    keys = Path("/var/lib/holdfast/keys/secret")
    writable_code = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    told = {
        "AF_INET6": family(socket.AF_INET6, socket.SOCK_STREAM),
        "AF_NETLINK": family(socket.AF_NETLINK, socket.SOCK_RAW),
        "AF_PACKET": family(socket.AF_PACKET, socket.SOCK_RAW),
        "read the record": refused(lambda: tuple(Path("/var/lib/holdfast").iterdir())),
        "write beside the record": refused(lambda: Path("/var/lib/holdfast/new").touch()),
        "change a file of the system": refused(writable),
        "read a key": refused(keys.read_bytes),
        "see the devices": refused(Path("/dev/probe").stat),
        "a namespace of its own": refused(unshare),
        "memory to write and run": refused(lambda: mmap.mmap(-1, 4096, prot=writable_code).close()),
    }
    json.dump(told, sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
