"""A device and its servers in one process, with a clock that stands still: agent x simulator x faults."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fake_clock import FakeClock
from holdfast.host.config import HookSettings, Settings, load
from holdfast.host.credentials import CredentialFiles
from holdfast.host.deploy import run_hook
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import CredentialState, DeviceRecord, Identity
from holdfast.wire.brski.idevid import aki
from holdfast.worker.ports import Environment, FactoryIdentity
from holdfast.worker.step import Step, StepReport
from holdfast_sim.faults import Fault
from holdfast_sim.link import InProcessTransport
from holdfast_sim.site import Server, Site
from holdfast_sim.world import World
from lifecycle.soft_keys import SoftKey, SoftKeys

T0 = datetime(2027, 6, 1, 12, tzinfo=UTC)
SERIAL = "HF-0001"
REGISTRAR = "registrar.example:8443"
SECOND = "second.example:8443"
IDENTITY = "ldevid"


class Device:
    """One gateway with a software IDevID, and a world of servers around it."""

    def __init__(
        self,
        directory: Path,
        *,
        faults: Sequence[str] = (),
        registrars: Sequence[str] = (REGISTRAR,),
        manufacturer: str = "",
        identities: str = "  - name: ldevid\n    protocols: [{est: {}}]\n",
        world: World | None = None,
    ) -> None:
        self.clock = FakeClock(T0)
        self.world = world or World.create(lambda: self.clock.now, secrets.token_bytes)
        self.world.sell(SERIAL)
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.keys = SoftKeys()
        self.site = Site(self.world, [Fault.parse(f) for f in faults])
        self.servers: dict[tuple[str, int], Server] = {("registrar.example", 8443): "registrar"}
        anchors = directory / "anchors.pem"
        anchors.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in self.world.manufacturer.anchors))
        config = directory / "holdfast.yaml"
        config.write_text(
            f"state-directory: {directory / 'state'}\n"
            f"manufacturer:\n  anchors: {anchors}\n{manufacturer}"
            f"registrars: [{', '.join(repr(r) for r in registrars)}]\n"
            f"identities:\n{identities}"
        )
        self.settings: Settings = load(config)
        self.factory = self._factory()
        self.facts: Mapping[str, str] = {}
        self.run_hook: Callable[[HookSettings, Mapping[str, str]], None] = run_hook

    def files(self, name: str) -> CredentialFiles:
        """Where the configuration puts the files of identity *name*."""
        settings = next(i for i in self.settings.identities if i.name == name)
        return CredentialFiles(
            settings.deploy_directory or self.settings.state_directory / "identities", name
        )

    def _factory(self) -> FactoryIdentity:
        made = self.world.manufacturer.device(SERIAL, self.clock.now)
        key = SoftKey(KeyRef("soft:idevid"), made.key)
        return FactoryIdentity(key, made.chain, SERIAL, aki(made.certificate))

    @property
    def environment(self) -> Environment:
        state = self.settings.state_directory
        return Environment(
            settings=self.settings,
            clock=self.clock,
            store=StateStore(state),
            keys=self.keys,
            factory=lambda: self.factory,
            manufacturer_anchors=self.world.manufacturer.anchors,
            transport=InProcessTransport(self.site, self.servers),
            files=self.files,
            random=secrets.token_bytes,
            facts=self.facts,
            run_hook=self.run_hook,
        )

    def step(self, *, renew: Sequence[str] = ()) -> StepReport:
        """One step, as a fresh worker would do it."""
        return Step(self.environment, renew=frozenset(renew)).run()

    def reload(self) -> None:
        """Read the configuration file again, as the next worker would."""
        self.settings = load(self.directory / "holdfast.yaml")

    def reface(self, faults: Sequence[str]) -> None:
        """The same servers, with other faults."""
        self.site = Site(self.world, [Fault.parse(f) for f in faults])

    def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)

    def live_until_active(self, *, steps: int = 12) -> StepReport:
        """Step at each due time until the identity is active and nothing is under way."""
        report = self.step()
        for _ in range(steps):
            if self.active:
                return report
            self.clock.now = max(self.clock.now, report.due)
            report = self.step()
        raise AssertionError(f"not active after {steps} steps: {report.record}")

    @property
    def record(self) -> DeviceRecord:
        record = StateStore(self.settings.state_directory).load().record
        assert record is not None
        return record

    @property
    def identity(self) -> Identity:
        return self.record.identity(IDENTITY)

    @property
    def active(self) -> bool:
        return self.identity.credential.state is CredentialState.ACTIVE

    @property
    def identity_end(self) -> datetime:
        """When the certificate of the identity ends."""
        return x509.load_der_x509_certificate(self.identity.credential.chain[0]).not_valid_after_utc

    def targets(self) -> list[str]:
        """The paths that the servers were asked for, in order."""
        return [entry.target for entry in self.site.transcript]
