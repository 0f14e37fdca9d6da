"""Ledgers on both databases, with units in them, for the tests of the line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from holdfast.wire.algorithms import spki
from holdfast_factory.authority import Product
from holdfast_factory.line import issuing
from holdfast_factory.line.book import Book
from holdfast_factory.line.database import Database
from holdfast_factory.line.plant import Plant, init_plant, open_plant
from holdfast_factory.unit import ProvedKeys, Purpose, StepName
from proofs.postgres import MissingPostgresError, Postgres

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@dataclass
class Clock:
    """Moves on by a second whenever it is asked."""

    at: datetime = START

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


@contextmanager
def server(settings: str = "") -> Iterator[Postgres]:
    """A PostgreSQL; where it is missing, a failure in CI and a skip elsewhere."""
    try:
        made = Postgres(settings)
    except MissingPostgresError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    with made as running:
        yield running


@contextmanager
def plant_in(directory: Path) -> Iterator[Plant]:
    """A factory with its keys in files."""
    init_plant(directory, Product("masa.example:9443"), START)
    with open_plant(directory) as opened:
        yield opened


def unit_name(number: int) -> str:
    return hashlib.sha256(b"unit %d" % number).hexdigest()


def make_device(book: Book, plant: Plant, number: int, *, scanned: str = "") -> str:
    """Take a unit that exists on paper alone through all steps; returns its name."""
    unit = unit_name(number)
    keys = ProvedKeys(*(spki(ec.generate_private_key(ec.SECP256R1())) for _ in range(2)), b"name")
    state = book.meet(unit, b"endorsement of %d" % number, "GW-{:06d}".format, scanned)
    assert plant.issuing is not None
    ca = issuing.Issuer(plant.product, plant.issuer, plant.issuing)
    for step in state.todo:
        signed = None
        if step is StepName.ISSUE:
            reserved = book.reserve(issuing.wanted(unit, keys, plant.issuer, os.urandom, START))
            signed = {each.purpose: issuing.sign(ca, each, state.serial) for each in reserved}
        book.done(unit, step, b"%s of %d" % (step.encode(), number), certificates=signed)
    return unit


def without_guards(database: Database) -> None:
    """What someone does who owns the database: take the triggers away."""
    tables = (
        "entries",
        "evidence",
        "units",
        "reservations",
        "certificates",
        "seals",
        "batches",
        "checkpoints",
    )
    with database.writing() as connection:
        if database.postgresql:
            for table in tables:
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            connection.execute(text("SET session_replication_role = replica"))
        else:
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
            for name in names:
                connection.execute(text(f"DROP TRIGGER {name}"))


__all__ = ["Clock", "Purpose", "make_device", "plant_in", "server", "unit_name", "without_guards"]
