"""Messages to the service manager: what is sent, and that nothing that goes wrong is fatal."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from holdfast.host import notify
from holdfast.host.notify import Notifier, monotonic_usec, watchdog_seconds


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    return manager


def test_one_message_holds_all_its_assignments(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.tell(READY=1, STATUS="all is well")
    assert manager.recv(4096) == b"READY=1\nSTATUS=all is well"
    notifier.tell(STATUS="two\nREADY=1\x1b")
    assert manager.recv(4096) == b"STATUS=two READY=1 ", "a line break begins no assignment of others"
    notifier.close()
    notifier.close()
    manager.close()


def test_an_abstract_name(tmp_path: Path) -> None:
    name = f"holdfast-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(60)
        notifier = Notifier("@" + name)
        notifier.tell(WATCHDOG=1)
        assert manager.recv(64) == b"WATCHDOG=1"
        notifier.close()


@pytest.mark.parametrize(
    "address", [None, "", "/nonexistent/notify", "@nobody-listens-here", "x" * 500, "\0"]
)
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    notifier = Notifier(address)
    notifier.tell(READY=1)
    notifier.close()


def test_a_manager_that_went_away_is_no_trouble(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    manager.close()
    notifier.tell(WATCHDOG=1)
    notifier.close()


def test_a_manager_that_does_not_read_holds_nobody_for_long(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SEND_SECONDS", 0.01)
    notifier = Notifier(manager.getsockname())
    for _ in range(200):  # more than the queue of a datagram socket holds
        notifier.tell(STATUS="x" * 4000)
    notifier.close()
    manager.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 4.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "7"}, 4.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_time_is_for_the_process_that_it_names(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ, pid=7) == seconds


def test_the_monotonic_time_is_the_kernel_s() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= monotonic_usec() <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
