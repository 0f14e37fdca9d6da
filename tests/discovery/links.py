"""Links and hosts of their own: network namespaces, joined by bridges, that nothing else can reach."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tools import need

_NUMBERS = itertools.count()


def need_namespaces() -> None:
    """Only root makes network namespaces: a skip elsewhere, a failure in CI."""
    need("ip", "iproute2")
    probe = f"hf{os.getpid()}p"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        subprocess.run(["ip", "netns", "del", probe], check=True)
        return
    reason = f"network namespaces cannot be made here (root can): {done.stderr.strip()}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Process:
    """A program in a namespace, whose first line of output tells that it is ready."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(environment),
        )
        self.pid = self._process.pid

    def line(self) -> str:
        """The next line. Raises RuntimeError with what it said if it ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}: {self.errors}")
        return line

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-4000:]

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def peak_kib(self) -> int:
        """The most memory that it ever had resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))

    def kill(self) -> None:
        """At once, for one that lets no SIGTERM through."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


class Host:
    """A namespace with one interface a link."""

    def __init__(self, name: str, net: Net) -> None:
        self.name = name
        self._net = net

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def run(
        self, *words: str, check: bool = True, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            check=check,
            timeout=90,
            env=_environment(environment),
        )

    def python(
        self, *words: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, *words, check=False, environment=environment)

    def start(self, *words: str) -> Process:
        """A program that runs until the net goes."""
        process = Process(self.command(*words))
        self._net.closing(process.close)
        return process

    def link_local(self, interface: str) -> str:
        """Its address on that link, without the zone."""
        told = json.loads(
            self.run("ip", "-j", "-6", "addr", "show", "dev", interface, "scope", "link").stdout
        )
        return str(next(a["local"] for each in told if each for a in each.get("addr_info", [])))


class Net:
    """Makes links and hosts, and takes all of them down again."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._tag = f"hf{os.getpid()}x{next(_NUMBERS)}"
        self._hub = ""

    def __enter__(self) -> Self:
        self._hub = self._namespace("hub")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def closing(self, what: Callable[[], None]) -> None:
        self._open.callback(what)

    def link(self, name: str) -> None:
        """A link that hosts can be on."""
        _ip("-n", self._hub, "link", "add", name, "type", "bridge", "mcast_snooping", "0")
        _ip("-n", self._hub, "link", "set", name, "up")

    def host(self, name: str, *, resolver: str = "", **interfaces: tuple[str, *tuple[str, ...]]) -> Host:
        """A host with *interfaces*: name, then the link and addresses with their prefix length. Programs on
        it see a resolv.conf with that *resolver*, or with none."""
        space = self._namespace(name)
        own = Path("/etc/netns") / space  # ip-netns(8)
        own.mkdir(parents=True)
        self._open.callback(shutil.rmtree, own)
        (own / "resolv.conf").write_text(f"nameserver {resolver}\n" if resolver else "")
        for interface, (link, *addresses) in interfaces.items():
            number = next(_NUMBERS)
            _ip("-n", self._hub, "link", "add", f"p{number}", "type", "veth", "peer", "name", f"q{number}")
            _ip("-n", self._hub, "link", "set", f"q{number}", "netns", space, "name", interface)
            for scope in ("all", "default", interface):
                _ip("netns", "exec", space, "sysctl", "-qw", f"net.ipv6.conf.{scope}.accept_dad=0")
            _ip("-n", self._hub, "link", "set", f"p{number}", "master", link, "up")
            _ip("-n", space, "link", "set", interface, "up")
            for address in addresses:
                nodad = ("nodad",) if ipaddress.ip_interface(address).version == 6 else ()
                _ip("-n", space, "addr", "add", address, "dev", interface, *nodad)
        return Host(space, self)

    def _namespace(self, name: str) -> str:
        space = f"{self._tag}{name}"
        _ip("netns", "add", space)
        self._open.callback(_ip, "netns", "del", space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until *what* holds: for foreign programs, which do not tell when they are ready."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {seconds:g} s")
        time.sleep(0.05)


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    """Ours, in which the modules of the tests are found as well."""
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", **(more or {})}
