"""Sets the stage: a factory-fresh device and the servers that it will meet, all of it on loopback.

Demonstration, benchmark, proof and crash tests stand on this one stage, and all of them run the agent as
its own process, through its command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from demo.hardware import Hardware, MeteredTpm, Token
from holdfast_factory.authority import Factory, Product, init_factory
from holdfast_factory.ek import EK_AUTHORITY
from holdfast_factory.swtpm import Swtpm

SERIAL: Final = "HF-2027-000042"

CONFIG: Final = """\
# Written by the demonstration: all that a device needs to be told.
state-directory: {state}
{hardware}\
  chain-file: {device}/idevid-chain.pem
manufacturer:
  anchors: {device}/manufacturer-anchors.pem
  voucher-signers: ["{signer}"]
registrars: ["{registrar}"]
clock: trusted  # the machine of a demonstration may have no time daemon
identities:
  - name: ldevid
    protocols:
      - {protocol}: {settings}
{extra}"""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished command of the agent."""

    status: int
    output: str = field(repr=False)
    errors: str

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        value = json.loads(self.output)
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {self.output[:200]!r}")
        return value


class Servers:
    """A service of ours as a process of its own: *module* with *arguments* tells in its first line where it
    is."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments, "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise RuntimeError(f"{module} did not start: {errors.strip()}")
        self.addresses: dict[str, Any] = json.loads(line)

    def close(self) -> None:
        """Stop it, and insist that it ends in good order."""
        self._process.send_signal(signal.SIGTERM)
        try:
            _, errors = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode != 0:
            raise RuntimeError(f"a server ended with {self._process.returncode}: {errors.strip()}")


class Stage:
    """A device with metered key hardware, its manufacturer, and its owner's servers. Leaves nothing behind.

    *keys*: ``tpm``, whose keys are stored as *storage* says, or ``pkcs11``.
    """

    def __init__(
        self,
        *,
        serve: Sequence[str] = (),
        storage: str = "blob",
        extra: str = "",
        serial: str = SERIAL,
        keys: str = "tpm",
        protocol: str = "est",
    ) -> None:
        self._serve = serve
        self._storage = storage
        self._keys = keys
        self.protocol = protocol
        self._extra = extra
        self._serial = serial
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._set()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _set(self) -> None:
        self.directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-")))
        self.device = self.directory / "device"
        self.state = self.directory / "state"
        now = datetime.now(UTC).replace(microsecond=0)
        works = self.directory / "factory"
        factory = init_factory(works, Product("masa.example", "Holdfast Example Works", "Gateway"), now)
        self.hardware: Hardware = self._hardware(factory)
        self.made = self.hardware.provision(factory, self._serial, self.device, now)
        attestation = self._attestation_ca(works) if self.protocol == "acme" else ()
        owner = ("--directory", str(self.directory / "owner"), "--manufacturer", str(works))
        self.servers = Servers("holdfast_sim.cli", "serve", *owner, *attestation, *self._serve)
        self._open.callback(self.servers.close)
        self.config = self.directory / "holdfast.yaml"
        self.configure(self.servers.addresses["registrar"])

    def _attestation_ca(self, works: Path) -> tuple[str, ...]:
        """The maker's attestation CA, and what the owner's ACME server must know of it."""
        makers = works / EK_AUTHORITY / "issuercert.pem"
        service = ("attestation-ca", "--factory", str(works), "--makers", str(makers))
        self._attestation = Servers("holdfast_factory.cli", *service)
        self._open.callback(self._attestation.close)
        return "--attestation-anchors", self._attestation.addresses["anchors"]

    def _hardware(self, factory: Factory) -> Hardware:
        if self._keys == "pkcs11":
            return Token(self.directory / "token")
        return MeteredTpm(self.directory / "tpm", factory, self._storage, self._open)

    @property
    def tpm(self) -> Swtpm:
        """The software TPM of a device that has one."""
        if not isinstance(self.hardware, MeteredTpm):
            raise LookupError("the keys of this device are in no TPM")
        return self.hardware.tpm

    def configure(self, registrar: str) -> None:
        """Write the device's configuration, pointing it at *registrar*."""
        self.config.write_text(
            CONFIG.format(
                state=self.state,
                hardware=self.hardware.settings(),
                device=self.device,
                signer=self.made.voucher_signer,
                registrar=registrar,
                protocol=self.protocol,
                settings=self._settings(),
                extra=self._extra,
            )
        )

    def _settings(self) -> str:
        """ACME and SCEP have no well-known place; SCEP needs a key that decrypts, ACME an attestation CA."""
        if self.protocol == "acme":
            here = self._attestation.addresses
            ca = f"{{ca-url: '{here['url']}', anchors-file: {here['server_anchors']}}}"
            return f"{{url: '{self.servers.addresses['acme']}', attestation: {ca}}}"
        if self.protocol != "scep":
            return "{}"
        return f"{{url: '{self.servers.addresses['scep']}', key: {{algorithm: rsa2048}}}}"

    def agent(self, *arguments: str) -> Run:
        """Run ``holdfast`` with this device's configuration, as its own process."""
        command = [sys.executable, "-m", "holdfast.cli.main", "--config", str(self.config), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "TSS2_LOG": "all+NONE"}
        )
        return Run(done.returncode, done.stdout, done.stderr)
