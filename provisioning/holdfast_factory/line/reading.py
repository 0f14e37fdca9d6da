"""Reading the ledger: where stations and units stand, how the line does, and what is known of a device.

Nothing here writes or waits for a turn. Times are UTC; *since* bounds what is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, func, or_, select

from holdfast.wire.errors import ConfigError
from holdfast_factory.line import schema
from holdfast_factory.line.database import Database
from holdfast_factory.line.entries import GENESIS, Entry, Kind, moment, read_body, timestamp
from holdfast_factory.unit import Purpose

MOST_EVENTS: Final = 500
_HOUR: Final = timedelta(hours=1)
_E: Final = schema.ENTRIES


@dataclass(frozen=True, slots=True)
class StationState:
    """``unit``, ``serial`` and ``step`` are of the unit it worked on last, as of ``at``; ``at_hand`` says
    whether that is still under way. ``code`` is the reason if its last step failed."""

    name: str
    at: datetime
    unit: str
    serial: str
    step: str
    code: str
    at_hand: bool


@dataclass(frozen=True, slots=True)
class Yield:
    """Units, not attempts: ``started`` were taken up since; of these ``sealed`` are devices, ``failed`` had a
    failure and are not; ``first_pass`` are devices that had none."""

    started: int
    sealed: int
    failed: int
    first_pass: int


@dataclass(frozen=True, slots=True)
class Hour:
    """How many units were sealed, and how many steps failed, in the hour that begins at ``begin``."""

    begin: datetime
    sealed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Cause:
    """How often ``step`` failed for the reason ``code``."""

    code: str
    step: str
    count: int


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate: its serial number in hex, SHA-256 of its DER, and the DER."""

    purpose: Purpose
    x509_serial: str
    sha256: str
    der: bytes


@dataclass(frozen=True, slots=True)
class UnitStory:
    """All that the ledger knows of a unit."""

    unit: str
    serial: str
    sealed: datetime | None
    certificates: tuple[Issued, ...]
    entries: tuple[Entry, ...]


class Reading:
    """Questions to the ledger in *database*. All raise the errors of :class:`Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def head(self) -> tuple[int, str]:
        """Number and hash of the newest entry; 0 and zeros in an empty ledger."""
        with self._database.reading() as connection:
            row = connection.execute(select(_E.c.seq, _E.c.hash).order_by(_E.c.seq.desc()).limit(1)).first()
        return (row.seq, row.hash) if row else (0, GENESIS)

    def identity(self) -> str:
        """The ledger's own name; empty before its first entry."""
        with self._database.reading() as connection:
            body = connection.scalar(select(_E.c.body).where(_E.c.seq == 1))
        return str(read_body(body).get("ledger", "")) if body else ""

    def events(self, after: int, limit: int = MOST_EVENTS) -> tuple[Entry, ...]:
        """The entries after the number *after*, oldest first, at most *limit*."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(_E).where(_E.c.seq > after).order_by(_E.c.seq).limit(min(limit, MOST_EVENTS))
            ).all()
        return tuple(map(entry_of, rows))

    def stations(self) -> tuple[StationState, ...]:
        """Every station that was ever up, by name, with its last word."""
        newest = select(func.max(_E.c.seq)).where(_E.c.kind != Kind.OPENED.value).group_by(_E.c.station)
        with self._database.reading() as connection:
            rows = connection.execute(
                select(_E, schema.UNITS.c.serial)
                .outerjoin(schema.UNITS, schema.UNITS.c.unit == _E.c.unit)
                .where(_E.c.seq.in_(newest))
                .order_by(_E.c.station)
            ).all()
        return tuple(
            StationState(
                row.station,
                moment(row.at),
                row.unit,
                row.serial or "",
                row.step,
                row.code,
                at_hand=row.kind in (Kind.BEGUN, Kind.RESERVED),
            )
            for row in rows
        )

    def yields(self, since: datetime) -> Yield:
        """How the units fared that were taken up, or failed before they could be, since then."""
        sealed, failed = self._units(since, Kind.SEALED), self._units(since, Kind.FAILED)
        begun = self._units(since, Kind.BEGUN)
        return Yield(len(begun | failed), len(sealed), len(failed - sealed), len(sealed - failed))

    def per_hour(self, since: datetime) -> tuple[Hour, ...]:
        """Every full or begun hour of the clock from *since* to the last entry, none left out."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(func.substr(_E.c.at, 1, 13).label("hour"), _E.c.kind, func.count().label("count"))
                .where(_E.c.at >= timestamp(since), _E.c.kind.in_((Kind.SEALED.value, Kind.FAILED.value)))
                .group_by("hour", _E.c.kind)
            ).all()
        found: dict[str, Counter[str]] = {}
        for row in rows:
            found.setdefault(row.hour, Counter())[row.kind] = int(row._mapping["count"])
        if not found:
            return ()
        first = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        last = datetime.strptime(max(found), "%Y-%m-%dT%H").replace(tzinfo=UTC)
        count = int((last - first) / _HOUR) + 1
        return tuple(_hour(first + _HOUR * number, found) for number in range(count))

    def causes(self, since: datetime) -> tuple[Cause, ...]:
        """Why steps failed since then, the most frequent first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(_E.c.code, _E.c.step, func.count().label("count"))
                .where(_E.c.kind == Kind.FAILED.value, _E.c.at >= timestamp(since))
                .group_by(_E.c.code, _E.c.step)
            ).all()
        causes = (Cause(row.code, row.step, int(row._mapping["count"])) for row in rows)
        return tuple(sorted(causes, key=lambda c: (-c.count, c.code, c.step)))

    def find(self, text: str) -> UnitStory | None:
        """A unit by its serial number, by the hash that names it (8 digits or more), or by a certificate's
        serial number in hex. Raises ConfigError ``ledger.ambiguous`` if several units start alike."""
        with self._database.reading() as connection:
            unit = _look(connection, text)
            return None if unit is None else _story(connection, unit)

    def sealed_units(self) -> tuple[str, ...]:
        """Every device's unit, in the order in which they were sealed."""
        with self._database.reading() as connection:
            return tuple(connection.scalars(select(schema.SEALS.c.unit).order_by(schema.SEALS.c.entry)))

    def _units(self, since: datetime, kind: Kind) -> set[str]:
        with self._database.reading() as connection:
            where = (_E.c.kind == kind.value) & (_E.c.at >= timestamp(since))
            return set(connection.scalars(select(_E.c.unit).where(where).distinct()))


def entry_of(row: Row[Any]) -> Entry:
    """A row of the table as a record."""
    return Entry(
        int(row.seq),
        row.at,
        row.station,
        row.unit,
        row.kind,
        row.step,
        row.code,
        row.body,
        row.previous,
        row.hash,
    )


def _hour(begin: datetime, found: dict[str, Counter[str]]) -> Hour:
    counted = found.get(begin.strftime("%Y-%m-%dT%H"), Counter())
    return Hour(begin, counted[Kind.SEALED], counted[Kind.FAILED])


def _look(connection: Connection, text: str) -> str | None:
    units, reserved = schema.UNITS, schema.RESERVATIONS
    named = or_(units.c.serial == text, units.c.unit == text)
    exact: str | None = connection.scalar(select(units.c.unit).where(named))
    if exact is not None:
        return exact
    lower = text.lower().removeprefix("0x").replace(":", "")
    if not lower or not set(lower) <= set("0123456789abcdef"):
        return None
    numbered = reserved.c.x509_serial == lower.lstrip("0")
    by_number: str | None = connection.scalar(select(reserved.c.unit).where(numbered))
    if by_number is not None or len(lower) < 8:
        return by_number
    alike: Sequence[str] = connection.scalars(
        select(units.c.unit).where(units.c.unit.startswith(lower)).limit(2)
    ).all()
    if len(alike) > 1:
        raise ConfigError("ledger.ambiguous", f"several units start with {lower}")
    return alike[0] if alike else None


def _story(connection: Connection, unit: str) -> UnitStory:
    reserved, issued = schema.RESERVATIONS, schema.CERTIFICATES
    serial = connection.scalar(select(schema.UNITS.c.serial).where(schema.UNITS.c.unit == unit))
    entries = connection.execute(select(_E).where(_E.c.unit == unit).order_by(_E.c.seq)).all()
    rows = connection.execute(
        select(issued.c.purpose, issued.c.sha256, issued.c.der, reserved.c.x509_serial)
        .join(reserved, (reserved.c.unit == issued.c.unit) & (reserved.c.purpose == issued.c.purpose))
        .where(issued.c.unit == unit)
        .order_by(issued.c.purpose)
    ).all()
    certificates = (Issued(Purpose(r.purpose), r.x509_serial, r.sha256, bytes(r.der)) for r in rows)
    story = tuple(map(entry_of, entries))
    sealed = next((moment(each.at) for each in story if each.kind == Kind.SEALED), None)
    return UnitStory(unit, serial or "", sealed, tuple(certificates), story)
