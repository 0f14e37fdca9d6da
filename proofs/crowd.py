"""Clients of the control socket: many that ask, and some that are slow, greedy, wrong or without end.

``python -m proofs.crowd askers|pests PATH SECONDS`` prints one JSON object with what it saw.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import time
from typing import Final

CONNECTIONS: Final = 24
RATE: Final = 1100
"""Asked for in a second: a little more than must be answered, for a machine that stutters."""

TICK: Final = 0.02
GREEDY: Final = 4
SLOW: Final = 12
ENDLESS: Final = 100 << 20

STATUS: Final = b'{"method": "io.holdfast.Agent.GetStatus"}\0'
OTHERS: Final = (
    b'{"method": "org.varlink.service.GetInfo"}\0',
    b'{"method": "io.holdfast.Agent.GetCertificate", "parameters": {"identity": "ldevid"}}\0',
    b'{"method": "io.holdfast.Agent.Nothing"}\0',
)
GARBAGE: Final = (
    b"\0" * 100,
    b"GET / HTTP/1.1\r\n\r\n\0",
    b"[" * 16000 + b"\0",
    os.urandom(4000) + b"\0",
    b"{}\0",
)


def askers(path: str, seconds: float) -> dict[str, float]:
    """Ask at RATE over CONNECTIONS that are made anew when they were sent away."""
    clients = [_connect(path) for _ in range(CONNECTIONS)]
    round_robin = itertools.cycle(range(CONNECTIONS))
    calls = itertools.cycle([STATUS] * 17 + list(OTHERS))
    asked = answered = lost = 0
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        while asked < passed * RATE:
            n = next(round_robin)
            try:
                clients[n].send(next(calls))
            except BlockingIOError:
                break
            except OSError:
                clients[n], lost = _connect(path), lost + 1
                continue
            asked += 1
        answered += sum(_replies(client) for client in clients)
        time.sleep(TICK)
    end = time.monotonic() + 5
    while answered < asked and time.monotonic() < end:
        answered += sum(_replies(client) for client in clients)
        time.sleep(TICK)
    return {"asked": asked, "answered": answered, "sent_away": lost, "seconds": round(passed, 1)}


def pests(path: str, seconds: float) -> dict[str, float]:
    """Slow ones, ones that take no answer, ones that talk nonsense, and ones that send 100 MB."""
    slow: list[socket.socket] = []
    greedy: list[socket.socket] = []
    told = {"slow": 0, "greedy": 0, "garbage": 0, "endless": 0, "endless_bytes": 0}
    end = time.monotonic() + seconds
    for n in itertools.count():
        if time.monotonic() >= end:
            return {**told}
        slow = [c for c in slow if _sent(c, b"x")]
        while len(slow) < SLOW:
            slow.append(_connect(path))
            told["slow"] += 1
        greedy = [c for c in greedy if _sent(c, STATUS * 50)]
        while len(greedy) < GREEDY:
            greedy.append(_connect(path))
            told["greedy"] += 1
        with _connect(path) as client:
            _sent(client, GARBAGE[n % len(GARBAGE)])
            told["garbage"] += 1
        with _connect(path) as client:
            told["endless_bytes"] = max(told["endless_bytes"], _flood(client))
            told["endless"] += 1
        time.sleep(0.1)
    raise AssertionError


def _connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    with contextlib.suppress(OSError):
        client.connect(path)
    client.settimeout(0)
    return client


def _replies(client: socket.socket) -> int:
    try:
        return client.recv(1 << 20).count(b"\0")
    except OSError:
        return 0


def _sent(client: socket.socket, data: bytes) -> bool:
    try:
        client.send(data)
    except BlockingIOError:
        return True
    except OSError:
        client.close()
        return False
    return True


def _flood(client: socket.socket) -> int:
    """How many of ENDLESS bytes were taken before we were sent away."""
    client.settimeout(5)
    block, sent = b"x" * 65536, 0
    with contextlib.suppress(OSError):
        while sent < ENDLESS:
            sent += client.send(block)
    return sent


if __name__ == "__main__":
    kind, path, seconds = sys.argv[1:]
    print(json.dumps({"askers": askers, "pests": pests}[kind](path, float(seconds))))
