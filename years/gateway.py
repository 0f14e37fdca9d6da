"""One gateway: the agent's real step, stores and clock over a disk, a TPM and a network in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

from holdfast.host.clock import believed
from holdfast.host.config import Settings
from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import CredentialState, DeviceRecord
from holdfast.resident.agent import FIRST_RETRY, LONGEST_RETRY, SHORTEST_WAIT
from holdfast.wire.acme.challenges import HTTP_01, Task
from holdfast.wire.brski.idevid import aki
from holdfast.wire.errors import HoldfastError
from holdfast.worker.agenda import turn_of
from holdfast.worker.ports import Environment, FactoryIdentity
from holdfast.worker.step import Step, StepReport

from .clocks import HostClock, Time
from .disk import Disk, Link
from .estate import SERIAL, Estate
from .house import STATE, settings_for
from .keys import SoftKey, SoftTpm
from .power import Fuse, PowerCut

HEARTBEAT: Final = timedelta(days=90)
"""A step comes at least this often. The resident process looks every six hours; who is lazier sees more."""


@dataclass(frozen=True, slots=True)
class Woken:
    """What one step came to: its report, or the error that ended it, or the point where the power failed."""

    report: StepReport | None = None
    error: HoldfastError | None = None
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """Meets http-01: what it shows is seen at once. Implements ``Solver`` of ``wire.acme.challenges``."""

    pages: dict[str, str]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({HTTP_01})

    def present(self, task: Task) -> None:
        self.pages[task.token] = task.key_authorization

    def withdraw(self, task: Task) -> None:
        self.pages.pop(task.token, None)


class Gateway:
    """``wait`` is how long the host sleeps after the last step; None while it has no power."""

    def __init__(self, time: Time, chance: Random, estate: Estate, fuse: Fuse) -> None:
        self._time = time
        self._chance = chance
        self._estate = estate
        self.fuse = fuse
        self.settings: Settings = settings_for(estate.house)
        self.disk = Disk(fuse)
        self.keys = SoftTpm(fuse)
        self.clock = HostClock(time, fuse)
        self.battery = chance.random() < 0.5
        self.powered = True
        self._failures = 0
        made = estate.world.manufacturer.device(SERIAL, time.now)
        self._factory = FactoryIdentity(
            SoftKey(KeyRef("soft:idevid"), made.key), made.chain, SERIAL, aki(made.certificate)
        )

    @property
    def store(self) -> StateStore:
        return StateStore(STATE)

    def files(self, name: str) -> CredentialFiles:
        return CredentialFiles(STATE / "identities", name)

    def deployed(self, name: str) -> str:
        """Which directory of the identity *name* other programs see, "" for none."""
        link = self.disk.find(STATE / "identities" / name / "current")
        return link.target if isinstance(link, Link) else ""

    def step(self) -> Woken:
        """One worker, from the durable state."""
        self._estate.begin_step()
        try:
            return Woken(report=Step(self._environment()).run())
        except HoldfastError as error:
            return Woken(error=error)
        except PowerCut as cut:
            return Woken(cut=str(cut))

    def wait_after(self, woken: Woken) -> timedelta:
        """How long the resident process would sleep, but for its look every six hours."""
        if woken.report is None:
            self._failures += 1
            return timedelta(seconds=min(FIRST_RETRY * 2 ** min(self._failures - 1, 10), LONGEST_RETRY))
        self._failures = 0
        return min(max(woken.report.wait, timedelta(seconds=SHORTEST_WAIT)), HEARTBEAT)

    def next_turn(self, record: DeviceRecord) -> timedelta | None:
        """How long from now until the first of the active credentials is to be renewed."""
        now = believed(self.clock, record.proven, record.time_floor)
        entries = ((record.identity(s.name), s) for s in self.settings.identities)
        turns = [turn_of(e, s, now) for e, s in entries if e.credential.state is CredentialState.ACTIVE]
        return min(turns) - now.now if turns else None

    def lose_power(self) -> None:
        self.powered = False
        self.disk.lose_power(self._chance)

    def boot(self) -> None:
        """The power is back. Without a battery the clock starts in 1970; nobody has vouched for it yet."""
        self.powered = True
        self._failures = 0
        self.fuse.mend()
        if self.battery:
            self.clock.set_wrong(self.clock.error)
        else:
            self.clock.start_without_battery()

    def _environment(self) -> Environment:
        return Environment(
            settings=self.settings,
            clock=self.clock,
            store=self.store,
            keys=self.keys,
            factory=self._idevid,
            manufacturer_anchors=self._estate.world.manufacturer.anchors,
            transport=self._estate,
            files=self.files,
            random=self._chance.randbytes,
            solver=lambda _settings: Board(self._estate.board),
        )

    def _idevid(self) -> FactoryIdentity:
        self.keys.answer("read the IDevID")
        return self._factory
