"""The tables. Every one is append-only, on every database, by triggers that the migrations make.

``entries`` is the ledger itself. The others say what must never be said twice, as constraints that hold
over any number of stations: a serial number is one unit's, a unit has one IDevID, a key one certificate.
Their rows name the entry that tells of them, so that the audit can hold the two against each other.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_HASH: Final = String(64)
# SQLite numbers rows by "INTEGER" alone.
_SEQ: Final = BigInteger().with_variant(Integer, "sqlite")


def _entry() -> Column[int]:
    return Column("entry", _SEQ, ForeignKey("entries.seq"), nullable=False)


ENTRIES: Final = Table(
    "entries",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("at", String(27), nullable=False),
    Column("station", String(64), nullable=False),
    Column("unit", _HASH, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("step", String(32), nullable=False),
    Column("code", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", _HASH, nullable=False, unique=True),
    Column("hash", _HASH, nullable=False, unique=True),
    Index(None, "unit", "seq"),
    Index(None, "station", "seq"),
    Index(None, "kind", "at"),
)

EVIDENCE: Final = Table(
    "evidence",
    METADATA,
    Column("sha256", _HASH, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

UNITS: Final = Table(
    "units",
    METADATA,
    Column("unit", _HASH, primary_key=True),
    Column("serial", String(64), nullable=False, unique=True),
    # What the line's own numbering gave; a serial number that was scanned has none.
    Column("number", _SEQ, nullable=True, unique=True),
    _entry(),
)

RESERVATIONS: Final = Table(
    "reservations",
    METADATA,
    Column("unit", _HASH, ForeignKey("units.unit"), primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("issuer", String(40), nullable=False),
    Column("x509_serial", String(40), nullable=False),
    Column("key_sha256", _HASH, nullable=False, unique=True),
    Column("not_before", String(27), nullable=False),
    _entry(),
    UniqueConstraint("issuer", "x509_serial"),
    CheckConstraint("purpose IN ('idevid', 'iak')", name="purpose"),
)

CERTIFICATES: Final = Table(
    "certificates",
    METADATA,
    Column("unit", _HASH, primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("sha256", _HASH, nullable=False, unique=True),
    Column("der", LargeBinary, nullable=False),
    _entry(),
    ForeignKeyConstraint(["unit", "purpose"], ["reservations.unit", "reservations.purpose"]),
)

SEALS: Final = Table(
    "seals",
    METADATA,
    Column("unit", _HASH, ForeignKey("units.unit"), primary_key=True),
    _entry(),
)

BATCHES: Final = Table(
    "batches",
    METADATA,
    Column("batch", String(32), primary_key=True),
    Column("direction", String(3), primary_key=True),
    Column("sha256", _HASH, nullable=False),
    _entry(),
    CheckConstraint("direction IN ('out', 'in')", name="direction"),
)

CHECKPOINTS: Final = Table(
    "checkpoints",
    METADATA,
    Column("seq", _SEQ, ForeignKey("entries.seq"), primary_key=True, autoincrement=False),
    Column("cms", LargeBinary, nullable=False),
)
