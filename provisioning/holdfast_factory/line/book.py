"""Writing in the ledger. Each method is one turn: what it says stands wholly and durably, or not at all.

Asked twice for the same, a method finds what the first call wrote and returns that. So a station that was
killed, or that lost its server while it committed, simply asks again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select

from holdfast.wire.errors import KeyStoreError, StateCorrupt, StateError
from holdfast_factory.idevid import check_serial
from holdfast_factory.line import schema
from holdfast_factory.line.database import Database
from holdfast_factory.line.entries import GENESIS, Entry, Fact, Json, Kind, link, read_body, timestamp
from holdfast_factory.unit import Purpose, StepName

EVIDENCE_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reservation:
    """A certificate that the factory has bound itself to: its serial number (hex) and the key it is for
    (SubjectPublicKeyInfo). ``issuer`` is the CA's key identifier in hex."""

    unit: str
    purpose: Purpose
    issuer: str
    x509_serial: str
    public: bytes = field(repr=False)
    not_before: str

    @property
    def key_sha256(self) -> str:
        """The hash under which the ledger keeps the key."""
        return hashlib.sha256(self.public).hexdigest()


@dataclass(frozen=True, slots=True)
class UnitState:
    """Where a unit stands. ``evidence`` is the SHA-256 by step, of what the step left."""

    unit: str
    serial: str
    done: frozenset[StepName]
    evidence: Mapping[StepName, str]
    certificates: Mapping[Purpose, bytes]
    sealed: bool

    @property
    def todo(self) -> tuple[StepName, ...]:
        """The steps that are left, in their order."""
        return tuple(step for step in StepName if step not in self.done)


class Page:
    """A turn at writing: entries go on in order."""

    def __init__(self, connection: Connection, at: str) -> None:
        self.connection = connection
        self.at = at
        newest = connection.execute(
            select(schema.ENTRIES.c.seq, schema.ENTRIES.c.hash).order_by(schema.ENTRIES.c.seq.desc()).limit(1)
        ).first()
        self._seq: int = newest.seq if newest else 0
        self._hash: str = newest.hash if newest else GENESIS

    @property
    def head(self) -> tuple[int, str]:
        return self._seq, self._hash

    def write(self, fact: Fact) -> int:
        """Returns the number of the new entry."""
        entry = link(fact, self._seq + 1, self.at, self._hash)
        self.connection.execute(insert(schema.ENTRIES).values(_columns(entry)))
        self._seq, self._hash = entry.seq, entry.hash
        return entry.seq

    def keep(self, content: bytes, limit: int = EVIDENCE_LIMIT) -> str:
        """Store evidence by its hash; returns the hash. Raises StateError if it is too large."""
        if len(content) > limit:
            raise StateError("ledger.evidence", f"{len(content)} octets, at most {limit} are kept")
        name = hashlib.sha256(content).hexdigest()
        table = schema.EVIDENCE
        if self.connection.scalar(select(table.c.sha256).where(table.c.sha256 == name)) is None:
            self.connection.execute(insert(table).values(sha256=name, content=content))
        return name

    def recall(self, name: str) -> bytes:
        """What is kept under the SHA-256 *name*. Raises StateCorrupt ``ledger.evidence``."""
        return _recall(self.connection, name)


class Book:
    """The ledger in *database*, for the station called *station*. *now* is the station's clock."""

    def __init__(self, database: Database, station: str, now: Callable[[], datetime]) -> None:
        self.database = database
        self.station = station
        self._now = now

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A turn at writing. Raises the errors of :class:`Database`."""
        with self.database.writing() as connection:
            page = Page(connection, timestamp(self._now()))
            if page.head[0] == 0:  # the first entry names the ledger
                page.write(Fact(Kind.OPENED, self.station, body={"ledger": uuid.uuid4().hex, "format": 1}))
            yield page

    def station_up(self, facts: Mapping[str, Json]) -> None:
        """Say that the station works, with *facts* about it."""
        with self.page() as page:
            page.write(Fact(Kind.STATION, self.station, body=facts))

    def meet(self, unit: str, endorsement: bytes, numbered: Callable[[int], str], scanned: str) -> UnitState:
        """Take *unit* up, whose *endorsement* was found good; a new one gets its serial number for good.

        *scanned* is the number that the operator read off the board, empty to let *numbered* make one of the
        line's next number. Raises KeyStoreError ``factory.other-serial``, ``factory.serial-used``.
        """
        with self.page() as page:
            known = self._state(page.connection, unit)
            if known is None:
                known = self._admit(page, unit, endorsement, numbered, scanned)
            elif scanned and scanned != known.serial:
                text = f"this unit is {known.serial!r} already, it cannot become {scanned!r}"
                raise KeyStoreError("factory.other-serial", text)
            else:
                page.write(Fact(Kind.RESUMED, self.station, unit, body={"serial": known.serial}))
            if todo := known.todo:
                page.write(Fact(Kind.BEGUN, self.station, unit, todo[0]))
            return known

    def done(
        self,
        unit: str,
        step: StepName,
        evidence: bytes = b"",
        facts: Mapping[str, Json] | None = None,
        *,
        certificates: Mapping[Purpose, bytes] | None = None,
    ) -> None:
        """The result of *step*, with the *certificates* that it made, and in the same turn the intent of the
        next step; after the last one the unit is sealed. It is that once, and stays it."""
        with self.page() as page:
            for purpose, der in (certificates or {}).items():
                self.write_certificate(page, unit, purpose, der)
            self._result(page, unit, step, evidence, facts or {})
            following = tuple(StepName)[tuple(StepName).index(step) + 1 :]
            if following:
                page.write(Fact(Kind.BEGUN, self.station, unit, following[0]))
            else:
                self._seal(page, unit)

    def failed(self, unit: str, step: StepName, code: str, detail: str) -> None:
        """Why *step* did not succeed; the unit may come again. *unit* is empty where it could not be told."""
        with self.page() as page:
            text = detail.replace("\0", " ")[:500]
            page.write(Fact(Kind.FAILED, self.station, unit, step, code[:64], {"detail": text}))

    def reserve(self, wanted: Sequence[Reservation]) -> tuple[Reservation, ...]:
        """Bind the factory to these certificates, or find what it is bound to already.

        Raises KeyStoreError ``factory.key-changed`` where the unit had another key before, or another unit
        this one, and ``factory.x509-serial`` where the serial number is taken.
        """
        with self.page() as page:
            return tuple(self.write_reservation(page, each) for each in wanted)

    def register(self, page: Page, unit: str, serial: str) -> None:
        """Enter a unit that another line numbered. Raises as :meth:`meet` does."""
        check_serial(serial)
        known = self._state(page.connection, unit)
        if known is None:
            self._enter_unit(page, unit, serial, None)
        elif known.serial != serial:
            raise KeyStoreError("factory.other-serial", f"{unit} is {known.serial!r}, not {serial!r}")

    def write_certificate(self, page: Page, unit: str, purpose: Purpose, der: bytes) -> None:
        """Write down a certificate (DER) that was signed as reserved, before anyone gets to see it.

        A second one for the same purpose is dropped: what stands is what counts, so read it back. Raises
        StateCorrupt ``ledger.unreserved``.
        """
        table = schema.CERTIFICATES
        same = (table.c.unit == unit) & (table.c.purpose == purpose)
        if page.connection.scalar(select(table.c.unit).where(same)) is not None:
            return
        reserved = schema.RESERVATIONS
        known = (reserved.c.unit == unit) & (reserved.c.purpose == purpose)
        if page.connection.scalar(select(reserved.c.unit).where(known)) is None:
            raise StateCorrupt("ledger.unreserved", f"no {purpose} certificate was reserved for unit {unit}")
        name = hashlib.sha256(der).hexdigest()
        entry = page.write(
            Fact(Kind.ISSUED, self.station, unit, body={"purpose": purpose.value, "sha256": name})
        )
        page.connection.execute(
            insert(table).values(unit=unit, purpose=purpose.value, sha256=name, der=der, entry=entry)
        )

    def printed(self, unit: str, evidence: bytes, *, by: str = "", again: bool = False) -> None:
        """A label was printed; *by* is the operator who asked for it *again*."""
        with self.page() as page:
            body: dict[str, Json] = {"evidence": page.keep(evidence), "by": by, "again": again}
            page.write(Fact(Kind.PRINTED, self.station, unit, StepName.LABEL, body=body))

    def state(self, unit: str) -> UnitState | None:
        """Where *unit* stands; None if it never was on this line."""
        with self.database.reading() as connection:
            return self._state(connection, unit)

    def evidence(self, name: str) -> bytes:
        """What is kept under the SHA-256 *name*. Raises StateCorrupt ``ledger.evidence``."""
        with self.database.reading() as connection:
            return _recall(connection, name)

    def _admit(
        self, page: Page, unit: str, endorsement: bytes, numbered: Callable[[int], str], scanned: str
    ) -> UnitState:
        number = None if scanned else self._next_number(page.connection)
        serial = scanned or numbered(number or 0)
        check_serial(serial)
        self._enter_unit(page, unit, serial, number)
        kept = self._result(page, unit, StepName.ENDORSEMENT, endorsement, {})
        first = StepName.ENDORSEMENT
        return UnitState(unit, serial, frozenset({first}), {first: kept}, {}, sealed=False)

    def _enter_unit(self, page: Page, unit: str, serial: str, number: int | None) -> None:
        if self._owner(page.connection, serial) is not None:
            raise KeyStoreError("factory.serial-used", f"{serial!r} was given to another unit")
        entry = page.write(Fact(Kind.MET, self.station, unit, body={"serial": serial, "number": number}))
        page.connection.execute(
            insert(schema.UNITS).values(unit=unit, serial=serial, number=number, entry=entry)
        )

    def _result(
        self, page: Page, unit: str, step: StepName, evidence: bytes, facts: Mapping[str, Json]
    ) -> str:
        kept = page.keep(evidence) if evidence else ""
        body = {**facts, "evidence": kept} if kept else dict(facts)
        page.write(Fact(Kind.DONE, self.station, unit, step, body=body))
        return kept

    def _seal(self, page: Page, unit: str) -> None:
        table = schema.SEALS
        if page.connection.scalar(select(table.c.unit).where(table.c.unit == unit)) is None:
            entry = page.write(Fact(Kind.SEALED, self.station, unit))
            page.connection.execute(insert(table).values(unit=unit, entry=entry))

    def write_reservation(self, page: Page, wanted: Reservation) -> Reservation:
        """As :meth:`reserve` for one, in a turn of the caller's."""
        table = schema.RESERVATIONS
        mine = (table.c.unit == wanted.unit) & (table.c.purpose == wanted.purpose)
        row = page.connection.execute(select(table).where(mine)).first()
        if row is not None:
            if row.key_sha256 != wanted.key_sha256 or row.issuer != wanted.issuer:
                text = f"its {wanted.purpose} certificate was bound to another key or CA before"
                raise KeyStoreError("factory.key-changed", text)
            return reservation(row, wanted.public)
        if self._taken(page.connection, table.c.key_sha256 == wanted.key_sha256):
            raise KeyStoreError("factory.key-changed", "this key belongs to another unit or purpose")
        number = (table.c.issuer == wanted.issuer) & (table.c.x509_serial == wanted.x509_serial)
        if self._taken(page.connection, number):
            raise KeyStoreError("factory.x509-serial", f"the CA used {wanted.x509_serial} before")
        body = {
            "purpose": wanted.purpose.value,
            "issuer": wanted.issuer,
            "x509_serial": wanted.x509_serial,
            "key": page.keep(wanted.public),
            "not_before": wanted.not_before,
        }
        entry = page.write(Fact(Kind.RESERVED, self.station, wanted.unit, StepName.ISSUE, body=body))
        page.connection.execute(
            insert(table).values(
                unit=wanted.unit,
                purpose=wanted.purpose.value,
                issuer=wanted.issuer,
                x509_serial=wanted.x509_serial,
                key_sha256=wanted.key_sha256,
                not_before=wanted.not_before,
                entry=entry,
            )
        )
        return wanted

    @staticmethod
    def _taken(connection: Connection, where: Any) -> bool:
        return connection.scalar(select(schema.RESERVATIONS.c.unit).where(where)) is not None

    @staticmethod
    def _next_number(connection: Connection) -> int:
        newest = connection.scalar(select(func.max(schema.UNITS.c.number)))
        return (newest or 0) + 1

    @staticmethod
    def _owner(connection: Connection, serial: str) -> str | None:
        return connection.scalar(select(schema.UNITS.c.unit).where(schema.UNITS.c.serial == serial))

    @staticmethod
    def _state(connection: Connection, unit: str) -> UnitState | None:
        table, certificates, seals = schema.UNITS, schema.CERTIFICATES, schema.SEALS
        row = connection.execute(select(table).where(table.c.unit == unit)).first()
        if row is None:
            return None
        steps = connection.execute(
            select(schema.ENTRIES.c.step, schema.ENTRIES.c.body)
            .where(schema.ENTRIES.c.unit == unit, schema.ENTRIES.c.kind == Kind.DONE.value)
            .order_by(schema.ENTRIES.c.seq)
        ).all()
        done, kept = _progress([(row.step, row.body) for row in steps])
        issued = connection.execute(
            select(certificates.c.purpose, certificates.c.der).where(certificates.c.unit == unit)
        ).all()
        sealed = connection.scalar(select(seals.c.unit).where(seals.c.unit == unit)) is not None
        ders = {Purpose(purpose): bytes(der) for purpose, der in issued}
        return UnitState(unit, row.serial, done, kept, ders, sealed=sealed)


def _recall(connection: Connection, name: str) -> bytes:
    table = schema.EVIDENCE
    found = connection.scalar(select(table.c.content).where(table.c.sha256 == name))
    if found is None or hashlib.sha256(found).hexdigest() != name:
        raise StateCorrupt("ledger.evidence", f"the evidence {name} is not what was kept")
    return bytes(found)


def _progress(steps: Collection[tuple[str, str]]) -> tuple[frozenset[StepName], dict[StepName, str]]:
    kept: dict[StepName, str] = {}
    for step, body in steps:
        name = read_body(body).get("evidence")
        if isinstance(name, str):
            kept[StepName(step)] = name
    return frozenset(StepName(step) for step, _ in steps), kept


def reservation(row: Row[Any], public: bytes) -> Reservation:
    """A row of the table as a record; *public* is the key that is kept under its hash."""
    return Reservation(row.unit, Purpose(row.purpose), row.issuer, row.x509_serial, public, row.not_before)


def _columns(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in schema.ENTRIES.c.keys()}  # noqa: SIM118
