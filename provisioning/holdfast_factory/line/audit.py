"""Checks the whole ledger: every link of the chain, every row against the chain, every certificate.

A chain alone does not show that its end was cut off, or all of it written anew. For that there are
checkpoints: number and hash of an entry, signed by the line, which leave the factory with every manifest.
Whoever kept one can have the ledger held against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from sqlalchemy import Connection, select

from holdfast.wire import certificates
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import HoldfastError, StateCorrupt
from holdfast_factory.line import schema
from holdfast_factory.line.database import Database
from holdfast_factory.line.entries import GENESIS, Entry, Kind, digest
from holdfast_factory.line.reading import entry_of

_AT_ONCE: Final = 500
_E: Final = schema.ENTRIES
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Head:
    """An entry by number and hash, as a checkpoint names it."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found whole. ``head`` is the newest entry."""

    head: Head
    entries: int
    units: int
    sealed: int
    certificates: int
    evidence: int


def audit(database: Database, issuer: x509.Certificate, kept: tuple[Head, ...] = ()) -> Audited:
    """Check everything; *kept* are checkpoints that the line gave out before.

    Raises StateCorrupt ``ledger.chain``, ``ledger.body``, ``ledger.row``, ``ledger.certificate``,
    ``ledger.evidence``, ``ledger.checkpoint``; the detail names the first entry that is not as it must be.
    """
    with database.reading() as connection:
        ledger = _walk(connection, {head.seq: head.hash for head in kept})
        return Audited(
            head=ledger.head,
            entries=ledger.head.seq,
            units=_check_units(connection, ledger),
            certificates=_check_certificates(connection, ledger, issuer),
            sealed=_check_seals(connection, ledger),
            evidence=_check_evidence(connection, ledger.evidence),
        )


@dataclass(slots=True)
class _Told:
    """What the chain says: rows that must be there, and no others."""

    head: Head
    units: dict[str, tuple[int, str | None]]
    reserved: dict[tuple[str, str], tuple[int, str | None, str | None]]
    issued: dict[tuple[str, str], tuple[int, str | None]]
    sealed: dict[str, int]
    evidence: dict[str, int]


def _walk(connection: Connection, kept: dict[int, str]) -> _Told:
    told = _Told(Head(0, GENESIS), {}, {}, {}, {}, {})
    for entry in _entries(connection):
        if entry.seq != told.head.seq + 1:
            raise _broken(entry, f"entry {told.head.seq + 1} is missing")
        if entry.previous != told.head.hash:
            raise _broken(entry, "it does not follow the entry before it")
        try:
            found = digest(entry)
        except StateCorrupt as error:
            raise _broken(entry, error.detail) from error
        if found != entry.hash:
            raise _broken(entry, "its content is not what its hash was made of")
        if kept.pop(entry.seq, entry.hash) != entry.hash:
            raise StateCorrupt("ledger.checkpoint", f"entry {entry.seq} is not the one that was signed for")
        told.head = Head(entry.seq, entry.hash)
        _note(told, entry)
    if kept:
        text = f"entry {min(kept)} was signed for, and the ledger ends at {told.head.seq}"
        raise StateCorrupt("ledger.checkpoint", text)
    return told


def _entries(connection: Connection) -> Iterator[Entry]:
    after = -1
    while rows := connection.execute(
        select(_E).where(_E.c.seq > after).order_by(_E.c.seq).limit(_AT_ONCE)
    ).all():
        yield from map(entry_of, rows)
        after = rows[-1].seq


def _note(told: _Told, entry: Entry) -> None:
    facts = entry.facts
    match entry.kind:
        case Kind.MET:
            told.units[entry.unit] = (entry.seq, facts.get("serial"))
        case Kind.RESERVED:
            row = (entry.seq, facts.get("x509_serial"), facts.get("key"))
            told.reserved[entry.unit, facts.get("purpose", "")] = row
        case Kind.ISSUED:
            told.issued[entry.unit, facts.get("purpose", "")] = (entry.seq, facts.get("sha256"))
        case Kind.SEALED:
            told.sealed[entry.unit] = entry.seq
    for member in ("evidence", "key"):
        if isinstance(name := facts.get(member), str):
            told.evidence.setdefault(name, entry.seq)


def _check_units(connection: Connection, told: _Told) -> int:
    table = schema.UNITS
    rows = {r.unit: (int(r.entry), r.serial) for r in connection.execute(select(table))}
    _same(rows, told.units, "unit")
    return len(rows)


def _check_seals(connection: Connection, told: _Told) -> int:
    rows = {r.unit: int(r.entry) for r in connection.execute(select(schema.SEALS))}
    _same(rows, told.sealed, "seal of unit")
    for unit in rows:
        if (unit, "idevid") not in told.issued:
            raise StateCorrupt("ledger.row", f"the unit {unit} is sealed and has no IDevID")
    return len(rows)


def _check_certificates(connection: Connection, told: _Told, issuer: x509.Certificate) -> int:
    reserved = {
        (r.unit, r.purpose): (int(r.entry), r.x509_serial, r.key_sha256)
        for r in connection.execute(select(schema.RESERVATIONS))
    }
    _same(reserved, told.reserved, "reservation for unit")
    rows = connection.execute(select(schema.CERTIFICATES)).all()
    _same({(r.unit, r.purpose): (int(r.entry), r.sha256) for r in rows}, told.issued, "certificate of unit")
    for row in rows:
        serial = told.units[row.unit][1]
        if hashlib.sha256(row.der).hexdigest() != row.sha256:
            raise StateCorrupt("ledger.certificate", f"a certificate of {serial} is not what was entered")
        _check_certificate(bytes(row.der), reserved[row.unit, row.purpose][1:], serial, issuer)
    return len(rows)


def _check_certificate(
    der: bytes, reserved: tuple[str, str], serial: str | None, issuer: x509.Certificate
) -> None:
    try:
        found = certificates.load(der)
        found.verify_directly_issued_by(issuer)
        named = found.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)
        holds = (f"{found.serial_number:x}", hashlib.sha256(spki(found)).hexdigest())
    except (HoldfastError, ValueError, TypeError, InvalidSignature) as error:
        text = f"a certificate of {serial} is not of this CA: {error or type(error).__name__}"
        raise StateCorrupt("ledger.certificate", text) from error
    if holds != reserved or [each.value for each in named] != [serial]:
        raise StateCorrupt("ledger.certificate", f"a certificate of {serial} is not what was reserved")


def _check_evidence(connection: Connection, told: dict[str, int]) -> int:
    table = schema.EVIDENCE
    held = set(connection.scalars(select(table.c.sha256)))
    for name, seq in told.items():
        if name not in held:
            raise StateCorrupt("ledger.evidence", f"the evidence of entry {seq} is missing")
    for name in sorted(held):
        content = connection.scalar(select(table.c.content).where(table.c.sha256 == name))
        if hashlib.sha256(content or b"").hexdigest() != name:
            raise StateCorrupt("ledger.evidence", f"the evidence of entry {told.get(name, 0)} was altered")
    return len(held)


def _same(rows: dict[K, Any], told: dict[K, Any], what: str) -> None:
    """Each row is told of, and each telling has its row."""
    for key in rows.keys() | told.keys():
        if rows.get(key) != told.get(key):
            text = f"the {what} {key} is {rows.get(key)}, the chain says {told.get(key)}"
            raise StateCorrupt("ledger.row", text)


def _broken(entry: Entry, why: str) -> StateCorrupt:
    return StateCorrupt("ledger.chain", f"the first broken link is entry {entry.seq} of {entry.at}: {why}")
