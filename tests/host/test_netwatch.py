"""The kernel's messages about addresses and routes: which of them mean that the network came up."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.host.netwatch import Change, NetWatch, changes
from tools import need

ADDRESS = socket.inet_aton("192.0.2.7")


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return whole + b"\0" * (-len(whole) % 4)


def address(
    kind: int = 20, *, family: int = 2, flags: int = 0, scope: int = 0, value: bytes = ADDRESS
) -> bytes:
    attribute = struct.pack("=HH", 4 + len(value), 1) + value
    noise = struct.pack("=HH", 4 + 16, 6) + b"\x07" * 16  # IFA_CACHEINFO: lifetimes, which change
    return message(kind, struct.pack("=BBBBI", family, 24, flags, scope, 3) + attribute + noise)


def route(length: int) -> bytes:
    return message(24, struct.pack("=BBBBBBBBI", 2, length, 0, 0, 254, 3, 0, 1, 0))


def test_addresses_and_default_routes_are_told() -> None:
    (told,) = changes(address())
    assert told.kind == "address"
    (gone,) = changes(address(21))
    assert (gone.kind, gone.what) == ("gone", told.what)
    assert changes(route(0)) == [Change("route")]
    assert [c.kind for c in changes(address() + route(0) + address(21))] == ["address", "route", "gone"]


@pytest.mark.parametrize(
    "datagram",
    [
        address(scope=254),  # loopback
        address(scope=253),  # link-local
        address(flags=0x40),  # tentative
        route(24),
        message(16, b"\0" * 16),  # a link
        message(3, b""),
        b"",
        b"short",
        message(20, b"\0"),
        struct.pack("=IHHII", 4, 20, 0, 0, 0),
        struct.pack("=IHHII", 1 << 31, 20, 0, 0, 0),
    ],
)
def test_everything_else_is_not(datagram: bytes) -> None:
    assert changes(datagram) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(datagram: bytes) -> None:
    for change in changes(datagram):
        assert change.kind in {"address", "gone", "route"}


@given(st.binary(max_size=60))
def test_any_attributes_are_read_without_an_error(attributes: bytes) -> None:
    assert len(changes(message(20, struct.pack("=BBBBI", 2, 24, 0, 0, 3) + attributes))) == 1


class Kernel:
    """What a netlink socket would give."""

    def __init__(self, *datagrams: bytes | OSError) -> None:
        self.datagrams = list(datagrams)

    def recv(self, _size: int) -> bytes:
        if not self.datagrams:
            raise BlockingIOError
        first = self.datagrams.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("datagrams", "up"),
    [
        ([address()], [True]),
        ([address(), address()], [True, False]),  # a router advertisement prolonged it
        ([address(), address(21), address()], [True, False, True]),
        ([address(), address(value=socket.inet_aton("192.0.2.8"))], [True, True]),
        ([route(0), route(0)], [True, True]),
        ([address(21)], [False]),
        ([OSError(105, "No buffer space available"), address()], [True]),
    ],
)
def test_only_what_is_new_counts(datagrams: list[bytes | OSError], up: list[bool]) -> None:
    with NetWatch() as watch:
        watch.close()
        told = []
        for datagram in datagrams:
            watch._socket = Kernel(datagram)  # type: ignore[assignment]
            if isinstance(datagram, OSError):
                assert not watch.came_up()
            else:
                told.append(watch.came_up())
        watch._socket = None
    assert told == up


def test_the_kernel_s_own_word_for_it() -> None:
    need("unshare", "util-linux")
    need("ip", "iproute2")
    script = (
        "import select, subprocess\n"
        "from holdfast.host.netwatch import NetWatch\n"
        "run = lambda *a: subprocess.run(['ip', *a], check=True)\n"
        "with NetWatch() as watch:\n"
        "    print(watch.came_up())\n"
        "    run('link', 'add', 'd0', 'type', 'veth', 'peer', 'name', 'd1')\n"
        "    run('link', 'set', 'd0', 'up', 'addrgenmode', 'none')\n"
        "    run('link', 'set', 'd1', 'up', 'addrgenmode', 'none')\n"
        "    print(watch.came_up())\n"
        "    run('address', 'add', '192.0.2.1/24', 'dev', 'd0')\n"
        "    select.select([watch.descriptor], [], [], 60)\n"
        "    print(watch.came_up(), watch.came_up())\n"
        "    run('route', 'add', 'default', 'via', '192.0.2.2')\n"
        "    select.select([watch.descriptor], [], [], 60)\n"
        "    print(watch.came_up())\n"
        "    run('route', 'add', '198.51.100.0/24', 'via', '192.0.2.2')\n"
        "    print(watch.came_up())\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip(f"this kernel grants no namespace: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False", "True", "False", "True", "False"]


def test_closing_twice_is_no_error() -> None:
    watch = NetWatch()
    if watch.descriptor is not None:
        assert select.select([watch.descriptor], [], [], 0)[0] == []
    watch.close()
    watch.close()
    assert watch.descriptor is None
    assert not watch.came_up()
