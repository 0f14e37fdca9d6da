"""A line that is killed over and over: stations and PostgreSQL at seeded moments, and every unit comes out
right.

Real station processes (``holdfast-factory run``), a real database, an HSM for the CA's key, a software TPM
for each unit. A kill comes when the ledger has grown by a seeded number of entries, and a seeded few
milliseconds later, so that it falls anywhere: in a TPM command, in a commit, in the HSM.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from holdfast.wire.errors import StateError
from holdfast_factory.authority import Product
from holdfast_factory.line import schema
from holdfast_factory.line.audit import audit
from holdfast_factory.line.database import Database
from holdfast_factory.line.hsm import Hsm
from holdfast_factory.line.plant import init_plant, open_plant
from holdfast_factory.line.reading import Reading
from holdfast_factory.softhsm import make_token
from holdfast_factory.unit import Purpose
from proofs.bench_floor import ChipMaker, Fixture
from proofs.postgres import Postgres
from proofs.runner import FailedError

STALL: Final = 120.0
"""Seconds without a new entry after which the line counts as stuck."""
_LOOK: Final = 0.02
_BETWEEN_KILLS: Final = (25, 160)
"""Entries of the ledger, some 25 a unit: the least and the most between two kills."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``stations`` share the ledger, each with ``places`` fixtures; ``postgres``: else SQLite."""

    units: int
    stations: int
    places: int
    postgres: bool
    seed: int


class Stations:
    """The station processes. One that was killed is started again at once."""

    def __init__(self, commands: Sequence[Sequence[str]], log: Path) -> None:
        self._commands = commands
        self._log = log.open("ab")
        self._running = [self._start(number) for number in range(len(commands))]
        self.kills = 0

    def kill(self, number: int) -> None:
        """SIGKILL, and start it again."""
        self._running[number].kill()
        self._running[number].wait()
        self.kills += 1
        self._running[number] = self._start(number)

    def check(self) -> None:
        """A station that ended by itself is a failure."""
        for each in self._running:
            if each.poll() is not None:
                raise FailedError(f"a station ended with status {each.returncode}")

    def stop(self) -> None:
        """Let them end the units at hand."""
        for each in self._running:
            each.send_signal(signal.SIGTERM)
        ended = [each.wait(60) for each in self._running]
        self._log.close()
        # One that was started a moment ago may not know yet how to end well.
        if any(status not in (0, -signal.SIGTERM) for status in ended):
            raise FailedError(f"the stations ended with {ended}")

    def destroy(self) -> None:
        """Leave nothing behind, whatever happened."""
        for each in self._running:
            each.kill()
            each.wait()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._commands[number], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )


class Watch:
    """What the ledger says, seen from outside: asked again and again, through every crash."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sealed: set[str] = set()
        self._lock = threading.Lock()
        self._after = 0
        self.head = 0

    def look(self) -> None:
        """Take in what is new; a server that is down has nothing new."""
        table = schema.SEALS
        try:
            with self._database.reading() as connection:
                rows = connection.execute(select(table).where(table.c.entry > self._after)).all()
            head = Reading(self._database).head()[0]
        except StateError:
            return
        with self._lock:
            self.head = head
            for row in rows:
                self._sealed.add(row.unit)
                self._after = max(self._after, int(row.entry))

    def sealed(self, unit: str) -> bool:
        with self._lock:
            return unit in self._sealed


def run(plan: Plan) -> dict[str, Any]:
    """Run *plan* to its end and judge it; returns the figures. Raises FailedError."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-line-") as name, ExitStack() as stack:
        home = Path(name)
        server = stack.enter_context(Postgres()) if plan.postgres else None
        url = server.database() if server else f"sqlite:///{home / 'line.db'}"
        token = make_token(home / "hsm", "factory", "432198")
        token.see()
        hsm = Hsm(str(token.module), token.uri, str(token.pin_file))
        product = Product("masa.example:9443")
        init_plant(home / "factory", product, datetime.now(UTC).replace(microsecond=0), hsm)
        maker = ChipMaker(home / "maker.pem")
        database = Database(url)
        stack.callback(database.close)
        database.prepare()
        watch = Watch(database)
        left = iter(range(plan.units))
        fixtures = [
            Fixture(_directory(home / f"place{n}"), maker, lambda: next(left, None) is not None, watch.sealed)
            for n in range(plan.stations * plan.places)
        ]
        commands = [
            _command(home, url, f"S{number}", fixtures[number :: plan.stations])
            for number in range(plan.stations)
        ]
        stations = Stations(commands, home / "stations.log")
        try:
            with _robots(fixtures):
                _Fate(plan, fixtures, watch, stations, server).run()
            stations.stop()
        except FailedError as error:
            raise FailedError(f"{error}\n{(home / 'stations.log').read_text()[-3000:]}") from error
        finally:
            stations.destroy()
        return {
            **_judge(plan, home, database, fixtures),
            "killed_stations": stations.kills,
            "killed_servers": server.kills if server else 0,
            "seed": plan.seed,
            "seconds": round(time.monotonic() - began),
        }


@contextmanager
def _robots(fixtures: Sequence[Fixture]) -> Iterator[None]:
    for each in fixtures:
        each.start()
    try:
        yield
    except FailedError as error:
        faults = [repr(each.fault) for each in fixtures if each.fault is not None]
        raise FailedError("; ".join([str(error), *faults])) from error
    finally:
        for each in fixtures:
            each.close()
    for each in fixtures:
        if each.fault is not None:
            raise FailedError(f"a robot: {each.fault!r}") from each.fault


@dataclass(frozen=True, slots=True)
class _Fate:
    """Kills by the plan's seed until the last unit is sealed."""

    plan: Plan
    fixtures: Sequence[Fixture]
    watch: Watch
    stations: Stations
    server: Postgres | None

    def run(self) -> None:
        """Raises FailedError if the line does not go on."""
        chance = random.Random(self.plan.seed)
        due = chance.randint(*_BETWEEN_KILLS)
        last, since = 0, time.monotonic()
        while not all(each.done for each in self.fixtures):
            time.sleep(_LOOK)
            self.watch.look()
            self.stations.check()
            if self.watch.head != last:
                last, since = self.watch.head, time.monotonic()
            elif time.monotonic() - since > STALL:
                raise FailedError(f"nothing new in the ledger for {STALL:g} s, at entry {last}")
            if self.watch.head >= due:
                time.sleep(chance.random() * 0.05)
                self._kill(chance.randrange(self.plan.stations + (self.server is not None)))
                due = self.watch.head + chance.randint(*_BETWEEN_KILLS)

    def _kill(self, victim: int) -> None:
        if victim < self.plan.stations:
            self.stations.kill(victim)
        elif self.server is not None:
            self.server.kill()
            self.server.start()


def _judge(plan: Plan, home: Path, database: Database, fixtures: Sequence[Fixture]) -> dict[str, Any]:
    """Each unit that was made has one IDevID, in ledger and chip alike, and there is nothing else."""
    with open_plant(home / "factory") as plant:
        found = audit(database, plant.issuer)
    made = [unit for each in fixtures for unit in each.made]
    held = {each.unit: each.idevid for fixture in fixtures for each in fixture.found}
    issued = schema.CERTIFICATES
    with database.reading() as connection:
        rows = connection.execute(select(issued).where(issued.c.purpose == Purpose.IDEVID.value)).all()
        numbers = sorted(connection.scalars(select(schema.UNITS.c.number)).all())
        reserved = connection.scalars(select(schema.RESERVATIONS.c.x509_serial)).all()
    entered = {row.unit: bytes(row.der) for row in rows}
    problems = {
        "units lost": len(set(made) - set(entered)),
        "units doubled": len(rows) - len(entered),
        "chips that hold another IDevID than the ledger": sum(entered[u] != held.get(u) for u in entered),
        "units that nobody made": len(set(entered) - set(made)),
        "serial numbers missing or doubled": int(numbers != list(range(1, plan.units + 1))),
        "X.509 serial numbers doubled": len(reserved) - len(set(reserved)),
        "certificates promised and not issued": len(reserved) - found.certificates,
    }
    if any(problems.values()) or not len(set(made)) == found.sealed == plan.units:
        raise FailedError(f"{problems}; made {len(made)}, sealed {found.sealed} of {plan.units}")
    causes = Reading(database).causes(datetime(2000, 1, 1, tzinfo=UTC))
    return {
        "units": found.units,
        "sealed": found.sealed,
        "idevids_in_chips": len(held),
        "certificates": found.certificates,
        "entries": found.entries,
        "tpm_commands": sum(each.commands for each in fixtures),
        "failed_steps": {f"{each.step} {each.code}": each.count for each in causes},
    }


def _command(home: Path, url: str, name: str, fixtures: Sequence[Fixture]) -> list[str]:
    program = [sys.executable, "-m", "holdfast_factory.cli", "run", "--factory", str(home / "factory")]
    program += ["--ledger", url, "--station", name, "--makers", str(home / "maker.pem"), "--json"]
    for each in fixtures:
        program += ["--at", each.place]
    return [*program, "--poll", "0.05"]


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def main() -> int:
    """``python -m proofs.campaign UNITS [sqlite]``: one campaign by hand; ``SEED`` in the environment."""
    postgres = "sqlite" not in sys.argv
    plan = Plan(int(sys.argv[1]), 2 if postgres else 1, 4, postgres, int(os.environ.get("SEED", "1")))
    print(run(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
