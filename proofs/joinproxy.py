"""The join proxy's service under a real systemd: a part of ``make proof-discovery``.

The machine shares this host's network. The pledge's link is a veth pair whose far end lies in a namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.stage import Stage
from proofs.machine import Machine, fit, pss, until
from proofs.runner import ROOT, FailedError

UNIT: Final = "holdfast-proxy.service"
EXPOSURE: Final = 1.5
STOP_SECONDS: Final = 2.0
PSS_MIB: Final = 48.0
AT_ONE_TIME: Final = 2

CONFIG: Final = """\
manufacturer: {{anchors: manufacturer-anchors.pem}}
registrars: ["{registrar}"]
join-proxy: {{interfaces: [{link}], connections-per-source: {most}}}
"""
PROBE: Final = "/proof/confined.py"
DROP_IN: Final = f"""\
[Service]
ExecStartPre=/opt/holdfast/bin/python -P {PROBE}
"""
REFUSED: Final = {
    "AF_PACKET": {"EAFNOSUPPORT"},
    "write beside the record": {"EROFS"},
    "change a file of the system": {"EROFS"},
    "read a key": {"EACCES"},
    "see the devices": {"ENOENT"},
    "a namespace of its own": {"EPERM"},
    "memory to write and run": {"EPERM", "EACCES"},  # seccomp's word, and that of kernels from 6.3 on
}
"""What ``proofs/inside/confined.py`` may not do in the service's place. Everything else it may."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link between this host, whose end is ``ours``, and one pledge in the namespace ``space``."""

    space: str
    ours: str

    def pledge(self, *command: str) -> list[str]:
        """*command*, run where the pledge is."""
        return ["ip", "netns", "exec", self.space, *command]

    @property
    def address(self) -> str:
        """Our end's, as the pledge would write it."""
        told = json.loads(_call("ip", "-j", "-6", "addr", "show", "dev", self.ours, "scope", "link"))
        return f"{told[0]['addr_info'][0]['local']}%eth0"


@contextmanager
def made_link() -> Iterator[Link]:
    """A link that is there as long as the block lasts."""
    link = Link(f"hfproxy{os.getpid()}", f"hfp{os.getpid()}")
    ip("netns", "add", link.space)
    try:
        ip("link", "add", link.ours, "type", "veth", "peer", "name", "eth0", "netns", link.space)
        # Nobody else is on it to have the same address.
        _call("sysctl", "-qw", f"net.ipv6.conf.{link.ours}.accept_dad=0")
        _call(*link.pledge("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0"))
        ip("link", "set", link.ours, "up")
        ip("-n", link.space, "link", "set", "lo", "up")
        ip("-n", link.space, "link", "set", "eth0", "up")
        yield link
    finally:
        ip("netns", "del", link.space)


class Scene:
    """A registrar on loopback, the proxy in the machine, and a pledge that sees the proxy alone."""

    def __init__(self, stage: Stage, machine: Machine, link: Link) -> None:
        self._stage = stage
        self._machine = machine
        self._link = link
        self._port = 0

    def start(self) -> dict[str, Any]:
        """Installed, verified, exposed within the bound, started, and confined as the unit says."""
        machine = self._machine
        registrar = self._stage.servers.addresses["registrar"]
        config = CONFIG.format(registrar=registrar, link=self._link.ours, most=AT_ONE_TIME)
        machine.write("/etc/holdfast/holdfast.yaml", config)
        anchors = self._stage.device / "manufacturer-anchors.pem"
        machine.write("/etc/holdfast/manufacturer-anchors.pem", anchors.read_text())
        machine.write(PROBE, (ROOT / "proofs/inside/confined.py").read_text())
        machine.write(f"/etc/systemd/system/{UNIT}.d/probe.conf", DROP_IN)
        machine.before("install", "-d", "-o", "holdfast", "-g", "holdfast", "-m", "711", "/var/lib/holdfast")
        machine.write("/var/lib/holdfast/keys/secret", "a key\n")
        machine.before("chown", "-R", "holdfast:holdfast", "/var/lib/holdfast/keys")
        machine.boot()
        machine.write("/dev/probe", "")
        figures = {"exposure": self._exposure()}
        machine.run("systemctl", "start", UNIT, check=True)
        return {**figures, **self._confined()}

    def _exposure(self) -> float:
        path = f"/usr/lib/systemd/system/{UNIT}"
        verified = self._machine.run("systemd-analyze", "verify", "--man=no", path)
        if verified.returncode != 0 or verified.stdout + verified.stderr:
            raise FailedError(f"systemd-analyze verify: {verified.stdout}{verified.stderr}")
        done = self._machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", path)
        score = float(done.stdout.split("Overall exposure level")[1].split(":")[1].split()[0])
        if score > EXPOSURE:
            raise FailedError(f"exposure {score}, at most {EXPOSURE}")
        return score

    def _confined(self) -> dict[str, Any]:
        """By what the kernel says of the process, and by what a process in its place may do."""
        pid = self._machine.host_pid(UNIT)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        powers = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        uids = set(status["Uid"].split())
        if "0" in uids or any(powers.values()):
            raise FailedError(f"users {uids}, capabilities {powers}")
        if (status["NoNewPrivs"], status["Seccomp"]) != ("1", "2"):
            raise FailedError(f"NoNewPrivs {status['NoNewPrivs']}, Seccomp {status['Seccomp']}")
        told = next((line for line in self._journal() if "AF_PACKET" in line), "{}")
        confined = json.loads(told)
        free = json.loads(self._machine.run("/opt/holdfast/bin/python", "-P", PROBE, check=True).stdout)
        if not REFUSED.keys() < free.keys() or any(free.values()):
            raise FailedError(f"root without confinement met {free}: the probes say nothing")
        if confined.keys() != free.keys():
            raise FailedError(f"no word of a process in its place: {told}")
        wrong = {what: met for what, met in confined.items() if met not in REFUSED.get(what, {""})}
        if wrong:
            raise FailedError(f"a process in its place met {wrong}")
        return {"uid": int(status["Uid"].split()[0]), "capabilities": 0, "probes": len(free)}

    def _journal(self) -> list[str]:
        return self._machine.ask("journalctl", "-u", UNIT, "-o", "cat").splitlines()

    def _said(self, what: str) -> dict[str, Any]:
        """The line with which the proxy tells *what* it did."""
        lines = (line for line in self._journal() if line.startswith(f'{{"proxy": "{what}"'))
        line = until(f"it tells that it is {what}", lambda: next(lines, ""))
        told: dict[str, Any] = json.loads(line)
        return told

    def carry(self) -> dict[str, Any]:
        """A pledge that is told no address enrolls through it."""
        self._port = int(self._said("serving")["ports"][0])
        stage = self._stage
        text = stage.config.read_text()
        named = f'registrars: ["{stage.servers.addresses["registrar"]}"]'
        if text.count(named) != 1:
            raise FailedError("the stage's configuration names its registrar otherwise")
        stage.config.write_text(text.replace(named, "discovery: {order: [grasp]}"))
        command = (sys.executable, "-m", "holdfast.cli.main", "--config", str(stage.config), "step", "--json")
        told: dict[str, Any] = {}

        def enrolled() -> bool:
            nonlocal told
            told = json.loads(_call(*self._link.pledge(*command), check=False))
            return bool(told["state"] == "domain vouched, ldevid active")

        try:
            until("the pledge has its certificate", enrolled, 60)
        except FailedError as error:
            raise FailedError(f"{error}: {told}") from error
        pid = self._machine.host_pid(UNIT)
        if (cost := pss(pid)) > PSS_MIB:
            raise FailedError(f"{cost:.1f} MiB, at most {PSS_MIB}")
        return {"pss_mib": round(cost, 1), "found_by": "grasp"}

    def limit(self) -> dict[str, Any]:
        """One source gets as many connections at one time as the configuration says."""
        told = self._call(AT_ONE_TIME + 2)
        if told != {"served": AT_ONE_TIME, "reset": 2}:
            raise FailedError(f"{told} of {AT_ONE_TIME + 2}, at most {AT_ONE_TIME} were to be served")
        return {"at_one_time": AT_ONE_TIME}

    def _call(self, number: int) -> dict[str, int]:
        """So many connections at one time, from the pledge's end of the link."""
        script = str(ROOT / "proofs/inside/callers.py")
        where = (self._link.address, str(self._port), str(number))
        told: dict[str, int] = json.loads(_call(*self._link.pledge(sys.executable, script, *where)))
        return told

    def stop(self) -> dict[str, Any]:
        """A clean end within the bound, told in its log, after which nobody listens."""
        machine = self._machine
        began = time.monotonic()
        machine.run("systemctl", "stop", UNIT, check=True)
        took = round(time.monotonic() - began, 2)
        result = tuple(
            machine.show(UNIT, p) for p in ("Result", "ExecMainStatus", "ActiveState", "NRestarts")
        )
        if result != ("success", "0", "inactive", "0") or took > STOP_SECONDS:
            raise FailedError(f"not a clean end: {result} after {took} s")
        ended = self._said("ended")
        if ended["served"] < AT_ONE_TIME + 1 or ended["refused"] != 2:
            raise FailedError(f"it counted {ended}")
        if self._call(1)["served"]:
            raise FailedError("somebody still serves")
        return {"stop_s": took, "served": ended["served"], "refused": ended["refused"]}


def service() -> dict[str, Any]:
    """All of it in order. Raises FailedError where no machine can run: a proof with holes is none."""
    _call(str(ROOT / "scripts/machine.sh"))
    if reason := fit():
        raise FailedError(reason)
    with Stage(keys="pkcs11") as stage, made_link() as link, Machine() as machine:
        scene = Scene(stage, machine, link)
        return {**scene.start(), **scene.carry(), **scene.limit(), **scene.stop()}


def ip(*words: str) -> str:
    return _call("ip", *words)


def _call(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise FailedError(f"{' '.join(command)}: {done.stdout} {done.stderr}")
    return done.stdout
