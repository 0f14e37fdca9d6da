"""What the pages show, made out of what the ledger tells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from holdfast_factory.line.entries import Entry, Kind, moment
from holdfast_factory.line.reading import Cause, Hour, StationState, UnitStory, Yield
from holdfast_factory.screen import charts
from holdfast_factory.screen.stations import Stations

CHARTED: Final = timedelta(hours=11)
"""The chart of hours begins so long ago: with the hour at hand it has twelve columns."""
SILENT: Final = timedelta(minutes=5)
"""A station whose last word is older is not called working any more."""

_WORDS: Final = {
    Kind.MET: "taken up",
    Kind.RESUMED: "taken up again",
    Kind.BEGUN: "begins",
    Kind.DONE: "done",
    Kind.FAILED: "failed",
    Kind.RESERVED: "certificate reserved",
    Kind.ISSUED: "certificate issued",
    Kind.SEALED: "sealed",
    Kind.PRINTED: "label printed",
}


@dataclass(frozen=True, slots=True)
class ShiftFigures:
    """The figures since the shift began, as text where they may be missing."""

    sealed: int
    failed: int
    yield_text: str
    rate_text: str
    since_text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One station. ``ours``: this screen starts and stops it. ``state`` is one of stopped, waiting, working,
    failed, silent."""

    name: str
    place: str
    state: str
    serial: str
    step: str
    last: str
    ours: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a unit's story."""

    seq: int
    at: str
    station: str
    what: str
    outcome: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Story:
    """A unit's story for the page; ``certificates`` are (purpose, SHA-256)."""

    serial: str
    unit: str
    state: str
    certificates: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def shift(counted: Yield, since: datetime, now: datetime) -> ShiftFigures:
    """Yield is of the units that came to an end: sealed, of those that were sealed or failed."""
    ended = counted.sealed + counted.failed
    hours = max((now - since).total_seconds(), 60.0) / 3600
    return ShiftFigures(
        sealed=counted.sealed,
        failed=counted.failed,
        yield_text=f"{100 * counted.sealed / ended:.0f} %" if ended else "none yet",
        rate_text=f"{counted.sealed / hours:.0f}",
        since_text=f"{since.astimezone():%H:%M}",
    )


def rows(known: Sequence[StationState], ours: Stations, now: datetime) -> tuple[Row, ...]:
    """Our stations first, then those of other screens and shells."""
    states = {state.name: state for state in known}
    others = sorted(state.name for state in known if state.unit and state.name not in ours.places)
    return tuple(_row(name, states.get(name), ours, now) for name in (*sorted(ours.places), *others))


def causes(found: Sequence[Cause]) -> dict[str, int]:
    """How often, by step and reason."""
    return {f"{cause.step}: {cause.code}": cause.count for cause in found}


def hours(found: Sequence[Hour], now: datetime) -> str:
    """The chart of the last twelve hours, in local time."""
    sealed = {hour.begin: hour.sealed for hour in found}
    first = (now - CHARTED).replace(minute=0, second=0, microsecond=0)
    begins = (first + timedelta(hours=number) for number in range(12))
    return charts.columns(
        "Sealed units an hour", [(f"{begin.astimezone():%H}", sealed.get(begin, 0)) for begin in begins]
    )


def story(found: UnitStory) -> Story:
    """All entries of a unit."""
    lines = tuple(map(_line, found.entries))
    failed = next((line.outcome for line in reversed(lines) if line.what.startswith("failed")), "")
    state = f"sealed {found.sealed.astimezone():%Y-%m-%d %H:%M:%S}" if found.sealed else failed or "under way"
    issued = tuple((each.purpose.value, each.sha256) for each in found.certificates)
    return Story(found.serial, found.unit, state, issued, lines)


def _row(name: str, state: StationState | None, ours: Stations, now: datetime) -> Row:
    running = ours.running(name)
    mine = name in ours.places
    if mine and not running:
        word = "stopped"
    elif state is None or not state.unit:
        word = "waiting"
    elif state.at_hand:
        word = "working" if now - state.at <= SILENT else "silent"
    else:
        word = "failed" if state.code else "waiting"
    return Row(
        name=name,
        place=ours.places.get(name, ""),
        state=word,
        serial=state.serial if state else "",
        step=state.step if state and state.at_hand else "",
        last=state.code or "good" if state and state.unit and not state.at_hand else "",
        ours=mine,
        running=running,
    )


def _line(entry: Entry) -> Line:
    what = " ".join(filter(None, (_WORDS.get(Kind(entry.kind), entry.kind), entry.step)))
    facts = entry.facts
    by = facts.get("by")
    outcome = entry.code or (f"again, for {by}" if facts.get("again") else "")
    if entry.kind == Kind.FAILED and facts.get("detail"):
        outcome += f": {facts['detail']}"
    return Line(
        seq=entry.seq,
        at=f"{moment(entry.at).astimezone():%Y-%m-%d %H:%M:%S}",
        station=entry.station,
        what=what,
        outcome=outcome,
        bad=entry.kind == Kind.FAILED,
    )
