"""The ledger's first tables and the triggers that keep them append-only.

This module stands on its own: what it makes must stay the same, whatever becomes of ``schema.py``.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

_HASH: Final = sa.String(64)
_SEQ: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TABLES: Final = (
    "entries", "evidence", "units", "reservations", "certificates", "seals", "batches", "checkpoints"
)  # fmt: skip

_SAME: Final = {
    "evidence": "sha256 = NEW.sha256",
    "units": "unit = NEW.unit OR serial = NEW.serial OR number = NEW.number",
    "reservations": "(unit = NEW.unit AND purpose = NEW.purpose) OR key_sha256 = NEW.key_sha256 "
    "OR (issuer = NEW.issuer AND x509_serial = NEW.x509_serial)",
    "certificates": "(unit = NEW.unit AND purpose = NEW.purpose) OR sha256 = NEW.sha256",
    "seals": "unit = NEW.unit",
    "batches": "batch = NEW.batch AND direction = NEW.direction",
    "checkpoints": "seq = NEW.seq",
}


def _entry() -> sa.Column[int]:
    return sa.Column("entry", _SEQ, sa.ForeignKey("entries.seq"), nullable=False)


def upgrade() -> None:
    """There is no way back: a ledger is append-only."""
    _make_tables()
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _make_tables() -> None:
    op.create_table(
        "entries",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("station", sa.String(64), nullable=False),
        sa.Column("unit", _HASH, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("previous", _HASH, nullable=False, unique=True),
        sa.Column("hash", _HASH, nullable=False, unique=True),
    )
    op.create_index(None, "entries", ["unit", "seq"])
    op.create_index(None, "entries", ["station", "seq"])
    op.create_index(None, "entries", ["kind", "at"])
    op.create_table(
        "evidence",
        sa.Column("sha256", _HASH, primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "units",
        sa.Column("unit", _HASH, primary_key=True),
        sa.Column("serial", sa.String(64), nullable=False, unique=True),
        sa.Column("number", _SEQ, nullable=True, unique=True),
        _entry(),
    )
    op.create_table(
        "reservations",
        sa.Column("unit", _HASH, sa.ForeignKey("units.unit"), primary_key=True),
        sa.Column("purpose", sa.String(16), primary_key=True),
        sa.Column("issuer", sa.String(40), nullable=False),
        sa.Column("x509_serial", sa.String(40), nullable=False),
        sa.Column("key_sha256", _HASH, nullable=False, unique=True),
        sa.Column("not_before", sa.String(27), nullable=False),
        _entry(),
        sa.UniqueConstraint("issuer", "x509_serial"),
        sa.CheckConstraint("purpose IN ('idevid', 'iak')", name="purpose"),
    )
    op.create_table(
        "certificates",
        sa.Column("unit", _HASH, primary_key=True),
        sa.Column("purpose", sa.String(16), primary_key=True),
        sa.Column("sha256", _HASH, nullable=False, unique=True),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        _entry(),
        sa.ForeignKeyConstraint(["unit", "purpose"], ["reservations.unit", "reservations.purpose"]),
    )
    op.create_table(
        "seals",
        sa.Column("unit", _HASH, sa.ForeignKey("units.unit"), primary_key=True),
        _entry(),
    )
    op.create_table(
        "batches",
        sa.Column("batch", sa.String(32), primary_key=True),
        sa.Column("direction", sa.String(3), primary_key=True),
        sa.Column("sha256", _HASH, nullable=False),
        _entry(),
        sa.CheckConstraint("direction IN ('out', 'in')", name="direction"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("seq", _SEQ, sa.ForeignKey("entries.seq"), primary_key=True, autoincrement=False),
        sa.Column("cms", sa.LargeBinary(), nullable=False),
    )


def _guard_sqlite() -> None:
    for table in _TABLES:
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {table}'); END"
            )
    # INSERT OR REPLACE would otherwise be an UPDATE that no trigger sees.
    for table, same in _SAME.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
            f"BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: {table} is append-only'); END"
        )
    op.execute(
        "CREATE TRIGGER entries_link BEFORE INSERT ON entries "
        "WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM entries) "
        f"OR NEW.previous <> COALESCE((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), '{'0' * 64}') "
        "BEGIN SELECT RAISE(ABORT, 'the entry does not follow the last one'); END"
    )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION holdfast_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'the ledger is append-only: %', TG_TABLE_NAME; END $$"
    )
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION holdfast_append_only()"
        )
    op.execute(
        "CREATE FUNCTION holdfast_link() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "DECLARE newest entries%ROWTYPE; BEGIN "
        "SELECT * INTO newest FROM entries ORDER BY seq DESC LIMIT 1; "
        "IF NEW.seq <> COALESCE(newest.seq, 0) + 1 "
        f"OR NEW.previous <> COALESCE(newest.hash, '{'0' * 64}') "
        "THEN RAISE EXCEPTION 'the entry does not follow the last one'; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER entries_link BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION holdfast_link()"
    )
