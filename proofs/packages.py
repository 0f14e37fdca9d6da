"""The Debian packages: built, judged by lintian, and put on a machine that never saw Holdfast.

The machine runs the release's own systemd and installs by apt-get from a repository in its own file system.
The servers and the software TPM run out here, as for ``proofs.daemon``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from demo.stage import Stage
from proofs.machine import Machine, until
from proofs.runner import ROOT, FailedError

UNIT: Final = "holdfast.service"
STATE: Final = "/var/lib/holdfast/identities/ldevid/current/chain.pem"
REPOSITORY: Final = "/srv/repository"
APT: Final = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q")

CONFIG: Final = """\
keys: {{tcti: "{tcti}"}}
idevid: {{chain-file: idevid-chain.pem}}
manufacturer:
  anchors: manufacturer-anchors.pem
registrars: ["{registrar}"]
clock: trusted
identities:
  - name: ldevid
"""

FOREIGN: Final = re.compile(r"holdfast_(sim|factory)|aiohttp|sqlalchemy|zeroconf")
"""What must not reach a gateway."""


def build(suite: str, out: Path, revision: str = "", lintian: bool = True) -> list[Path]:
    """The packages of this checkout for *suite*. Raises FailedError, also if lintian has something to say."""
    told = {"DEB_OUT": str(out), "DEB_REVISION": revision, "DEB_LINTIAN": "yes" if lintian else "no"}
    done = subprocess.run(
        [ROOT / "scripts/deb.sh", suite],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FailedError(done.stderr)
    return [Path(line) for line in done.stdout.split()]


def fields(package: Path) -> str:
    """The control paragraph of a package."""
    done = subprocess.run(["dpkg-deb", "--field", package], capture_output=True, text=True, check=True)
    return done.stdout


def files(package: Path) -> list[str]:
    """Paths in a package."""
    done = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True)
    return [line.split(None, 5)[5] for line in done.stdout.splitlines()]


def index(packages: Iterator[Path]) -> str:
    """A repository's list of its packages."""
    paragraphs = []
    for package in packages:
        content = package.read_bytes()
        place = f"Filename: ./{package.name}\nSize: {len(content)}\n"
        paragraphs.append(f"{fields(package)}{place}SHA256: {hashlib.sha256(content).hexdigest()}\n")
    return "\n".join(paragraphs)


class Fresh(Machine):
    """A machine of *suite* with a repository, from which nothing was installed yet."""

    def __init__(self, suite: str) -> None:
        super().__init__()
        self.suite = suite

    def _install(self) -> None:
        done = subprocess.run(
            [ROOT / "scripts/deb.sh", "--fresh", self.suite], check=True, stdout=subprocess.PIPE, text=True
        )
        home = Path(done.stdout.strip())
        self._lay(home / "fresh")
        place = self.root / REPOSITORY.lstrip("/")
        place.mkdir(parents=True)
        out = self.directory / "built"
        self.earlier = build(self.suite, out / "earlier", "~earlier", lintian=False)
        self.packages = build(self.suite, out / "now")
        for package in (*self.earlier, *self.packages, *(home / "pool").glob("*.deb")):
            (place / package.name.replace("%3a", ":")).write_bytes(package.read_bytes())
        (place / "Packages").write_text(index(p for p in sorted(place.glob("*.deb"))))
        for old in (self.root / "etc/apt/sources.list.d").glob("*"):
            old.unlink()
        (self.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{REPOSITORY} ./\n")


def version(packages: list[Path], name: str = "holdfast") -> str:
    """The version of one of *packages*."""
    (package,) = [p for p in packages if p.name.startswith(f"{name}_")]
    return package.name.split("_")[1]


class Gateway:
    """One life of the package on one release."""

    def __init__(self, stage: Stage, machine: Fresh) -> None:
        self.stage, self.machine = stage, machine
        self._chain = ""

    def _apt(self, *words: str) -> str:
        return self.machine.run(*APT, *words, check=True).stdout

    def _status(self) -> dict[str, Any]:
        done = self.machine.run("holdfast", "status", "--json")
        try:
            told: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return {}
        return told

    def _identity(self) -> dict[str, Any]:
        found = [i["credential"] for i in self._status().get("identities", [])]
        return next((credential for credential in found if credential["state"] == "active"), {})

    def _unharmed(self, generation: int) -> str:
        """The agent runs, knows its identity, and did not ask for another."""
        until("the agent runs", lambda: self.machine.show(UNIT, "ActiveState") == "active")
        found = until("the identity is active", self._identity)
        if found["generation"] != generation or self.machine.read(STATE) != self._chain:
            raise FailedError(f"not the same identity: {found}")
        return str(found["state"])

    def contents(self) -> Mapping[str, Any]:
        """No code of a CA in the agent's package; every import of it satisfied once it is installed."""
        (agent,) = [p for p in self.machine.packages if p.name.startswith("holdfast_")]
        if foreign := [f for f in files(agent) if FOREIGN.search(f)]:
            raise FailedError(f"in the agent's package: {foreign[:5]}")
        return {
            "files": len(files(agent)),
            "package_mib": round(agent.stat().st_size / 2**20, 1),
            "vendored": sum("/site-packages/" in f and f.endswith(".dist-info/") for f in files(agent)) - 1,
        }

    def install(self) -> Mapping[str, Any]:
        """An earlier build, without a network: nothing runs yet, nothing has failed, doctor says why."""
        self._apt("update")
        said = self._apt("install", f"holdfast={version(self.machine.earlier)}")
        for unit in (UNIT, "holdfast.socket"):
            if (state := self.machine.show(unit, "ActiveState")) != "inactive":
                raise FailedError(f"{unit} is {state} without a configuration")
            if self.machine.ask("systemctl", "is-enabled", unit) != "enabled":
                raise FailedError(f"{unit} would not start once there is a configuration")
        if failed := self._failed():
            raise FailedError(f"failed units: {failed}")
        doctor = self.machine.run("holdfast", "doctor")
        if doctor.returncode == 0 or "/etc/holdfast/holdfast.yaml" not in doctor.stdout + doctor.stderr:
            raise FailedError(f"doctor has no word on the missing configuration: {doctor}")
        return {"packages": said.count("Setting up "), "python": self._complete()}

    def _failed(self) -> set[str]:
        """Units of ours that failed; a throw-away machine has its own troubles."""
        listed = self.machine.ask("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return {line.split()[0] for line in listed.splitlines() if line.startswith("holdfast")}

    def _complete(self) -> str:
        """The version of Python; raises FailedError if an import of the agent is missing or too old."""
        root = Path(f"/proc/{self.machine.leader}/root")
        (site,) = (root / "usr/lib/holdfast/lib").glob("python*/site-packages")
        python = site.parent.name.removeprefix("python")
        faults = list(unsatisfied([str(site), str(root / "usr/lib/python3/dist-packages")], python))
        if faults:
            raise FailedError("; ".join(faults))
        return site.parent.name

    def start(self) -> Mapping[str, Any]:
        """A configuration, a start, an identity; doctor is content."""
        for name in ("idevid-chain.pem", "manufacturer-anchors.pem"):
            self.machine.write(f"/etc/holdfast/{name}", (self.stage.device / name).read_text())
        registrar = self.stage.servers.addresses["registrar"]
        config = CONFIG.format(tcti=self.stage.tpm.tcti, registrar=registrar)
        self.machine.write("/etc/holdfast/holdfast.yaml", config)
        self.machine.run("systemctl", "start", UNIT, check=True)
        found = until("the identity is active", self._identity)
        self._chain = self.machine.read(STATE)
        if self.machine.show("holdfast.socket", "ActiveState") != "active":
            raise FailedError("the socket did not come with the service")
        doctor = self.machine.run("holdfast", "doctor", "--json")
        if doctor.returncode != 0:
            raise FailedError(f"doctor: {doctor.stdout}")
        return {"generation": found["generation"], "doctor": doctor.returncode}

    def upgrade(self) -> Mapping[str, Any]:
        """This build over the earlier one: another process, the same identity, and renewal still works."""
        before = self.machine.show(UNIT, "MainPID")
        config = self.machine.read("/etc/holdfast/holdfast.yaml")
        self._apt("install", "holdfast")
        installed = self.machine.ask("dpkg-query", "-W", "-f", "${Version}", "holdfast")
        if installed != version(self.machine.packages) or self.machine.show(UNIT, "MainPID") == before:
            raise FailedError(f"{installed} is installed, process {before} runs on")
        if self.machine.read("/etc/holdfast/holdfast.yaml") != config:
            raise FailedError("the configuration was changed")
        state = self._unharmed(1)
        self.machine.run("holdfast", "renew", "ldevid", check=True)
        found = until("generation 2", lambda: (i := self._identity()).get("generation") == 2 and i)
        self._chain = self.machine.read(STATE)
        return {"to": installed, "after_upgrade": state, "renewed_to_generation": found["generation"]}

    def servers(self) -> Mapping[str, Any]:
        """Factory and simulator beside the agent, and off again."""
        names = ("holdfast-factory", "holdfast-sim")
        said = self._apt("install", *names)
        for name in names:
            self.machine.run(name, "--help", check=True)
        self.machine.run(
            "holdfast-factory", "init", "/root/factory", "--masa-url", "masa.example:9443", check=True
        )
        self._apt("purge", "--auto-remove", *names)
        return {"packages": said.count("Setting up "), "state": self._unharmed(2)}

    def remove(self) -> Mapping[str, Any]:
        """Removal keeps the identity: a new installation goes on with it."""
        self._apt("remove", "holdfast")
        if self.machine.read(STATE) != self._chain or self.machine.show(UNIT, "ActiveState") == "active":
            raise FailedError("removal took the identity, or left the agent running")
        self._apt("install", "holdfast")
        return {"state": self._unharmed(2)}

    def purge(self) -> Mapping[str, Any]:
        """Purging leaves the user, as Debian does, and nothing else."""
        self._apt("purge", "holdfast")
        found = self.machine.ask(
            "find", "/", "-xdev", "(", "-path", "/proc", "-o", "-path", REPOSITORY, "-o", "-path", "/var/log",
            "-o", "-path", "/root/factory", ")", "-prune", "-o", "(", "-iname", "*holdfast*",
            "-o", "-user", "holdfast", ")", "-print",
        )  # fmt: skip
        run = self.machine.ask(
            "find", "/run", "/var/lib", "-iname", "*holdfast*", "-not", "-path", "/run/systemd/*"
        )
        listed = self.machine.run("dpkg-query", "-W", "holdfast")
        if found or run or listed.returncode == 0:
            raise FailedError(f"left behind: {found} {run} {listed.stdout}")
        user = self.machine.ask("getent", "passwd", "holdfast").split(":")[-1]
        if not user.endswith("nologin"):
            raise FailedError(f"the user's shell is {user!r}")
        return {"left": 0, "user": user}


def unsatisfied(paths: list[str], python: str) -> Iterator[str]:
    """What the agent with all its extras needs on *python* and does not find in *paths*, or too old."""
    release = {"python_version": python, "python_full_version": f"{python}.0"}
    todo = [("holdfast", extra) for extra in ("", "tpm", "pkcs11", "acme")]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        distribution = next(iter(metadata.distributions(name=name, path=paths)), None)
        if distribution is None:
            yield f"{name} is missing"
            continue
        for need in map(Requirement, distribution.requires or ()):
            if need.marker is not None and not need.marker.evaluate({**release, "extra": extra}):
                continue
            found = next(iter(metadata.distributions(name=need.name, path=paths)), None)
            if found is not None and not need.specifier.contains(found.version):
                yield f"{name} wants {need}, there is {found.version}"
            if (need.name, "") not in seen:
                seen.add((need.name, ""))
                todo.append((need.name, ""))


def life(suite: str) -> Mapping[str, Any]:
    """Everything above on one release, in order; the first fault ends it."""
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        stage = stack.enter_context(Stage())
        machine = stack.enter_context(Fresh(suite))
        gateway = Gateway(stage, machine)
        figures["contents"] = gateway.contents()
        machine.boot()
        figures["systemd"] = machine.ask("systemctl", "--version").split("\n")[0]
        for step in (
            gateway.install,
            gateway.start,
            gateway.upgrade,
            gateway.servers,
            gateway.remove,
            gateway.purge,
        ):
            figures[step.__name__] = step()
            print(f"    {suite}: {step.__name__}: {json.dumps(figures[step.__name__])}", flush=True)
    return figures
