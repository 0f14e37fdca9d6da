"""One unit's way through a station: cut off at every point, refused for every reason, read again in the
end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from factory.ledgers import Clock, plant_in
from holdfast.wire.errors import KeyStoreError, KeyStoreUnavailable, StateError
from holdfast_factory.line.audit import audit
from holdfast_factory.line.book import Book
from holdfast_factory.line.database import UNAVAILABLE, Database
from holdfast_factory.line.entries import Kind
from holdfast_factory.line.plant import Plant, hand_out, open_plant
from holdfast_factory.line.reading import Cause, Reading
from holdfast_factory.line.shift import Limits, Shift
from holdfast_factory.line.station import Ending, Numbering, Result, Station
from holdfast_factory.places import open_unit
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.unit import Label, StepName, Unit
from proofs.bench_floor import ChipMaker

pytestmark = pytest.mark.tpm
ACTS = ("endorsement", "keys", "activate", "install", "read_back", "lock")


class _PowerCut(BaseException):
    """Not an Exception: nothing may catch it and go on."""


@dataclass
class Cutter:
    """Counts the points at which a station can die, and has it die at one of them."""

    at: int = -1
    seen: list[str] = field(default_factory=list)

    def point(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) - 1 == self.at:
            raise _PowerCut(name)


class CutUnit:
    """A unit before and after whose acts the station can die."""

    def __init__(self, unit: Unit, cutter: Cutter) -> None:
        self._unit = unit
        self._cutter = cutter

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._unit, name)
        if name not in ACTS:
            return real

        def act(*arguments: object) -> object:
            self._cutter.point(f"before {name}")
            result = real(*arguments)
            self._cutter.point(f"after {name}")
            return result

        return act


class CutDatabase(Database):
    """A database before and after whose commits the station can die."""

    def __init__(self, url: str, cutter: Cutter) -> None:
        super().__init__(url)
        self._cutter = cutter

    @contextmanager
    def writing(self) -> Iterator[Any]:
        with super().writing() as connection:
            yield connection
            self._cutter.point("before commit")
        self._cutter.point("after commit")


@dataclass
class Line:
    """A line with one chip maker; units are made on demand."""

    home: Path
    plant: Plant
    maker: ChipMaker
    roots: tuple[x509.Certificate, ...]
    labels: list[Label] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.home}/line.db"

    def chip(self, name: str) -> Swtpm:
        self.maker.make(self.home / name)
        return Swtpm(self.home / name)

    def work(
        self, chip: Swtpm, cutter: Cutter | None = None, *, roots: tuple[x509.Certificate, ...] | None = None,
        scanned: str = "", plant: Plant | None = None,
    ) -> Result:  # fmt: skip
        """One pass through a station that starts anew, as after a reset."""
        cutter = cutter or Cutter()
        database = CutDatabase(self.url, Cutter())
        database.prepare()
        database._cutter = cutter
        unit = open_unit(f"tcti:{chip.tcti}")
        try:
            station = self._station(Book(database, "A", _now), plant or self.plant)
            examiner = TpmExaminer(self.roots if roots is None else roots)
            result = station.work(CutUnit(unit, cutter), examiner, scanned=scanned)
            assert result is not None
            return result
        finally:
            unit.close()
            database.close()

    def _station(self, book: Book, plant: Plant) -> Station:
        def printer(label: Label) -> bytes:
            self.labels.append(label)
            return label.serial.encode()

        return Station(
            book, plant, printer, now=_now, random=secrets.token_bytes, numbered=Numbering("T-{:03d}")
        )

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        database = Database(self.url)
        database.prepare()
        try:
            yield Reading(database)
        finally:
            database.close()

    def audited(self) -> Any:
        database = Database(self.url)
        try:
            return audit(database, self.plant.issuer)
        finally:
            database.close()


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    maker = ChipMaker(tmp_path / "maker.pem")
    roots = tuple(x509.load_pem_x509_certificates((tmp_path / "maker.pem").read_bytes()))
    with plant_in(tmp_path / "factory") as plant:
        yield Line(tmp_path, plant, maker, roots)


def test_a_bare_board_becomes_a_device(line: Line) -> None:
    with line.chip("chip") as chip:
        result = line.work(chip)
        assert (result.ending, result.serial) == (Ending.SEALED, "T-001")
        assert line.work(chip).ending is Ending.ALREADY
    with line.reading() as reading:
        story = reading.find("T-001")
        assert story is not None
        assert reading.find(story.unit[:12]) == story == reading.find(story.certificates[0].x509_serial)
    assert [e.step for e in story.entries if e.kind == Kind.DONE] == [str(step) for step in StepName]
    assert [e.purpose for e in story.certificates] == ["iak", "idevid"]
    idevid = x509.load_der_x509_certificate(story.certificates[1].der)
    assert idevid.not_valid_after_utc.year == 9999
    assert line.labels[0].idevid == story.certificates[1].sha256


def test_every_step_has_its_intent_before_it(line: Line) -> None:
    with line.chip("chip") as chip:
        line.work(chip)
    with line.reading() as reading:
        told = [(e.kind, e.step) for e in reading.events(0) if e.step]
    for step in list(StepName)[1:]:
        assert told.index((Kind.BEGUN, step)) < told.index((Kind.DONE, step))
    assert told.index((Kind.RESERVED, "issue")) < told.index((Kind.DONE, "issue"))


def test_a_power_cut_at_any_point_is_mended_by_the_next_station(line: Line) -> None:
    """Each chip's first pass dies at another point; the second one, on a TPM that was reset, ends it."""
    points: list[str] = []
    for number in range(200):
        cutter = Cutter(number)
        with line.chip(f"chip{number}") as chip:
            try:
                line.work(chip, cutter)
            except _PowerCut as cut:
                points.append(str(cut))
            else:
                break
            chip.restart(orderly=False)
            result = line.work(chip)
            # Cut after the last commit, it is a device already.
            assert result.ending in (Ending.SEALED, Ending.ALREADY), (points[-1], result)
    assert {f"before {act}" for act in ACTS} | {"before commit", "after commit"} <= set(points)
    found = line.audited()
    made = len(points) + 1
    assert (found.units, found.sealed, found.certificates) == (made, made, 2 * made)
    with line.reading() as reading:
        assert not reading.causes(datetime(2000, 1, 1, tzinfo=UTC))
        serials = {story.serial for unit in reading.sealed_units() if (story := reading.find(unit))}
    assert serials == {f"T-{n:03d}" for n in range(1, made + 1)}


def test_two_stations_at_one_unit_issue_one_idevid(line: Line) -> None:
    """The second one comes while the first asks the HSM, and has done all of it before the first goes on,
    which then meets a chip that is not as it left it."""
    from holdfast_factory.line import issuing

    real, came = issuing.sign, []

    def also(*arguments: Any) -> bytes:
        if not came:
            came.append(None)
            came[0] = line.work(chip)
        return real(*arguments)

    with line.chip("chip") as chip, pytest.MonkeyPatch.context() as patched:
        patched.setattr(issuing, "sign", also)
        first = line.work(chip)
        assert came[0].ending is Ending.SEALED
        assert (first.ending, first.step) == (Ending.FAILED, "install")
        assert line.work(chip).ending is Ending.ALREADY
    found = line.audited()
    assert (found.units, found.sealed, found.certificates) == (1, 1, 2)


def test_a_chip_of_an_unknown_maker_costs_no_serial_number(line: Line, tmp_path: Path) -> None:
    ChipMaker(tmp_path / "other.pem")
    other = tuple(x509.load_pem_x509_certificates((tmp_path / "other.pem").read_bytes()))
    with line.chip("chip") as chip:
        refused = line.work(chip, roots=other)
        assert (refused.ending, refused.step) == (Ending.FAILED, "endorsement")
        assert refused.code.startswith("chain.")
        assert line.work(chip).serial == "T-001"
    with line.reading() as reading:
        counted = reading.yields(datetime(2000, 1, 1, tzinfo=UTC))
        causes = reading.causes(datetime(2000, 1, 1, tzinfo=UTC))
        (hour,) = reading.per_hour(_now().replace(minute=0, second=0, microsecond=0))[:1]
        (station,) = reading.stations()
    assert (counted.started, counted.sealed, counted.failed, counted.first_pass) == (1, 1, 0, 0)
    assert causes == (Cause(refused.code, "endorsement", 1),)
    assert (hour.sealed, hour.failed) == (1, 1)
    assert (station.name, station.serial, station.at_hand) == ("A", "T-001", False)


def test_a_unit_without_endorsement_key_certificate_is_refused(line: Line) -> None:
    with Swtpm(line.home / "bare") as chip:
        assert line.work(chip).code == "ek.no-certificate"


def test_a_scanned_number_is_the_units(line: Line) -> None:
    with line.chip("one") as one, line.chip("two") as two:
        assert line.work(one, scanned="SCAN-7").serial == "SCAN-7"
        assert line.work(two, scanned="SCAN-7").code == "factory.serial-used"
        assert line.work(two, scanned="SCAN 8 ").code == "factory.serial"
        assert line.work(two).serial == "T-001"


def test_a_unit_waits_for_a_ca_elsewhere_and_goes_on(line: Line, tmp_path: Path) -> None:
    hand_out(line.plant.directory, tmp_path / "handed")
    with open_plant(tmp_path / "handed") as without, line.chip("chip") as chip:
        waiting = line.work(chip, plant=without)
        assert (waiting.ending, waiting.step) == (Ending.WAITING, "issue")
        assert line.work(chip, plant=without).ending is Ending.WAITING
        assert line.work(chip).ending is Ending.SEALED  # the CA's key came to the line


def test_altered_evidence_is_not_built_upon(line: Line) -> None:
    cutter = Cutter()
    with line.chip("chip") as chip:
        line.work(chip, cutter)
        keys_done = cutter.seen.index("before activate")
    with line.chip("second") as second:
        with pytest.raises(_PowerCut):
            line.work(second, Cutter(keys_done))
        database = Database(line.url)
        from sqlalchemy import text

        from factory.ledgers import without_guards

        without_guards(database)
        with database.writing() as connection:
            connection.execute(text("UPDATE evidence SET content = x'00'"))
        database.close()
        with pytest.raises(StateError) as caught:
            line.work(second)
        assert caught.value.code == "ledger.evidence"


# --- a shift


@dataclass
class Told:
    """What the watcher heard."""

    results: list[Result] = field(default_factory=list)
    waits: int = 0

    def ended(self, place: str, result: Result) -> None:
        self.results.append(result)

    def waiting(self, why: str) -> None:
        self.waits += 1


class _Station:
    """A station that does what a list says: results, None, or errors to raise."""

    def __init__(self, script: list[Result | BaseException | None]) -> None:
        self.script = script
        self.last: list[str] = []

    def work(self, unit: object, examiner: object, *, scanned: str, unlike: str) -> Result | None:
        self.last.append(unlike)
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


class _Closing:
    def close(self) -> None:
        return


def _shift(
    script: list[Result | BaseException | None], told: Told, limits: Limits, begin: Callable[[], None] = Clock
) -> tuple[Shift, _Station]:
    station = _Station(script)
    shift = Shift(
        station,  # type: ignore[arg-type]
        ["tcti:x"],
        lambda place: _Closing(),  # type: ignore[arg-type, return-value]
        lambda place: None,  # type: ignore[arg-type, return-value]
        watcher=told,
        limits=limits,
        begin=begin,
        scan=str,
    )
    return shift, station


def _sealed(unit: str) -> Result:
    return Result(unit, unit, Ending.SEALED)


def test_a_shift_waits_for_its_ledger_and_takes_the_unit_up_again() -> None:
    told = Told()
    gone = StateError(UNAVAILABLE, "gone")
    shift, station = _shift([gone, gone, _sealed("u1"), None, _sealed("u2")], told, Limits(2, poll=0.001))
    shift.run()
    assert [each.unit for each in told.results] == ["u1", "u2"]
    assert told.waits == 2
    assert station.last == ["", "", "", "u1", "u1"]


def test_a_shift_begins_once_the_ledger_is_there() -> None:
    tries = [StateError(UNAVAILABLE, "gone"), None]

    def begin() -> None:
        if (error := tries.pop(0)) is not None:
            raise error

    told = Told()
    _shift([_sealed("u1")], told, Limits(1, poll=0.001), begin)[0].run()
    assert (told.waits, len(told.results)) == (1, 1)


def test_a_broken_ledger_ends_the_shift() -> None:
    with pytest.raises(StateError) as caught:
        _shift([StateError("ledger.broken", "x")], Told(), Limits(1, poll=0.001))[0].run()
    assert caught.value.code == "ledger.broken"


def test_once_means_one_unit_a_place_whatever_becomes_of_it() -> None:
    told = Told()
    failed = Result("u1", "", Ending.FAILED, "keys", "x")
    _shift([None, failed], told, Limits(once=True, poll=0.001))[0].run()
    assert told.results == [failed]


def test_a_unit_that_is_taken_away_is_no_failure(line: Line) -> None:
    class Gone:
        def endorsement(self) -> None:
            raise KeyStoreUnavailable("tpm.unavailable", "nothing there")

    class Broken:
        def endorsement(self) -> None:
            raise KeyStoreError("factory.ek", "no endorsement key")

    database = Database(line.url)
    database.prepare()
    station = line._station(Book(database, "A", _now), line.plant)
    assert station.work(Gone(), TpmExaminer(line.roots)) is None  # type: ignore[arg-type]
    failed = station.work(Broken(), TpmExaminer(line.roots))  # type: ignore[arg-type]
    assert failed is not None
    assert failed.code == "factory.ek"
    database.close()
