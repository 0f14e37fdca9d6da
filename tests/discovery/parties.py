"""Who meets on those links: a pledge with its key on a token, owners' registrars, and one who is no owner."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.hardware import Token
from discovery.links import Host, Process
from holdfast.host.store import StateStore
from holdfast_factory.authority import Factory, Product, init_factory, open_factory

ROOT = Path(__file__).resolve().parents[2]
_SERIALS = itertools.count(1)


@dataclass(frozen=True)
class Pledge:
    """A factory-fresh device. Its configuration names no registrar."""

    directory: Path
    config: Path

    @property
    def _command(self) -> tuple[str, ...]:
        return "-m", "holdfast.cli.main", "--config", str(self.config)

    @property
    def environment(self) -> dict[str, str]:
        """What leads the PKCS#11 module to this device's token, and to no other."""
        return {"SOFTHSM2_CONF": str(self.directory / "token/softhsm2.conf")}

    @property
    def refusals(self) -> dict[str, str]:
        """Who was found and refused, and the code of the reason."""
        record = StateStore(self.directory / "state").load().record
        assert record is not None
        return {each.endpoint: each.code for each in record.search.refusals}

    def agent(self, host: Host, *words: str) -> Any:
        """What the command *words* of the agent on *host* tells as JSON."""
        done = host.python(*self._command, *words, "--json", environment=self.environment)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def words(self, host: Host, *words: str) -> str:
        done = host.python(*self._command, *words, environment=self.environment)
        return done.stdout + done.stderr


@dataclass(frozen=True)
class Maker:
    """A manufacturer."""

    factory: Factory

    @property
    def directory(self) -> Path:
        return self.factory.directory

    @classmethod
    def found(cls, directory: Path) -> Maker:
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(init_factory(directory, Product("masa.example", "Example Works", "Gateway"), now))

    def pledge(self, directory: Path, extra: str = "") -> Pledge:
        """A device of this maker; *extra* are more lines of its configuration."""
        directory.mkdir()
        serial = f"HF-2027-{next(_SERIALS):06}"
        # A process of its own: a PKCS#11 module remembers where its tokens are.
        made = subprocess.run(
            [sys.executable, "-m", "discovery.parties", str(self.directory), str(directory), serial],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        config = directory / "holdfast.yaml"
        config.write_text(
            f"state-directory: {directory / 'state'}\n"
            f"{made.stdout}  chain-file: {directory / 'device/idevid-chain.pem'}\n"
            f"manufacturer:\n  anchors: {directory / 'device/manufacturer-anchors.pem'}\n"
            f"clock: trusted\n{extra}"
        )
        return Pledge(directory, config)


@dataclass(frozen=True)
class Registrar:
    """A simulated owner's servers on a host."""

    process: Process
    addresses: dict[str, Any]

    @property
    def port(self) -> int:
        return int(self.addresses["registrar"].rpartition(":")[2])


def registrar(host: Host, directory: Path, maker: Maker, *options: str) -> Registrar:
    """Registrar, MASA and CA on *host*, for devices of *maker*."""
    process = host.start(
        sys.executable,
        "-m",
        "holdfast_sim.cli",
        "serve",
        "--directory",
        str(directory),
        "--manufacturer",
        str(maker.directory),
        "--json",
        *options,
    )
    return Registrar(process, json.loads(process.line()))


def _make_device(works: str, directory: str, serial: str) -> None:
    """Give a token an IDevID, and print the configuration that leads to it."""
    token = Token(Path(directory) / "token")
    now = datetime.now(UTC).replace(microsecond=0)
    token.provision(open_factory(Path(works)), serial, Path(directory) / "device", now)
    sys.stdout.write(token.settings())


if __name__ == "__main__":
    _make_device(*sys.argv[1:])
