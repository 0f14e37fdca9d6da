"""The ledger on both databases: append-only, one chain under many writers, nothing given twice, and
audited."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from factory.ledgers import Clock, make_device, plant_in, server, unit_name, without_guards
from holdfast.wire.errors import ConfigError, KeyStoreError, SchemaTooNew, StateCorrupt, StateError
from holdfast_factory.line import schema
from holdfast_factory.line.audit import Head, audit
from holdfast_factory.line.book import Book, Reservation
from holdfast_factory.line.database import UNAVAILABLE, Database
from holdfast_factory.line.entries import timestamp
from holdfast_factory.line.export import checkpoint, kept_checkpoints, read_checkpoint
from holdfast_factory.line.plant import Plant
from holdfast_factory.line.reading import Reading
from holdfast_factory.unit import Purpose, StepName
from proofs.postgres import Postgres

NUMBERED = "GW-{:06d}".format


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/line.db"
    running: Postgres = request.getfixturevalue("postgres")
    return running.database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with plant_in(tmp_path / "factory") as opened:
        yield opened


@pytest.fixture
def book(database: Database) -> Book:
    return Book(database, "A", Clock())


def _reservation(number: int, key: bytes = b"key", x509_serial: str = "1f") -> Reservation:
    return Reservation(unit_name(number), Purpose.IDEVID, "ca", x509_serial, key, timestamp(Clock().at))


def test_migrations_make_the_tables_of_the_schema(database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.METADATA) == []


def test_a_ledger_of_a_newer_program_is_left_alone(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew):
        database.prepare()


def test_nothing_is_updated_or_deleted(database: Database, book: Book, plant: Plant) -> None:
    make_device(book, plant, 1)
    checkpoint(book, plant.signer, Clock().at)
    with book.page() as page:
        page.connection.execute(
            schema.BATCHES.insert().values(batch="b", direction="in", sha256="0", entry=1)
        )
    acts = ["DELETE FROM {}", "UPDATE {} SET {} = {}"]
    acts += ["TRUNCATE {} CASCADE"] if database.postgresql else ["INSERT OR REPLACE INTO {} SELECT * FROM {}"]
    for table in schema.METADATA.sorted_tables:
        column = next(iter(table.columns)).name
        for act in acts:
            words = (table.name, column, column) if "SET" in act else (table.name, table.name)
            with pytest.raises(StateError), database.writing() as connection:
                connection.execute(text(act.format(*words)))
    audit(database, plant.issuer)


def test_no_entry_goes_beside_the_chain(database: Database, book: Book, plant: Plant) -> None:
    make_device(book, plant, 1)
    seq, newest = Reading(database).head()
    for number, previous in ((seq + 2, newest), (seq + 1, "f" * 64), (seq, newest)):
        row = {
            "seq": number,
            "at": "",
            "station": "",
            "unit": "",
            "kind": "",
            "step": "",
            "code": "",
            "body": "{}",
        }
        with pytest.raises(StateError), database.writing() as connection:
            connection.execute(schema.ENTRIES.insert().values(row | {"previous": previous, "hash": "a" * 64}))


def test_many_writers_make_one_chain_and_no_number_twice(url: str, database: Database, plant: Plant) -> None:
    def work(station: int) -> None:
        mine = Database(url)
        try:
            book = Book(mine, f"S{station}", Clock())
            for number in range(8):
                # Half of the units stand at two stations at once.
                make_device_or_see_it(book, number if number % 2 else 100 * station + number)
        finally:
            mine.close()

    def make_device_or_see_it(book: Book, number: int) -> None:
        state = book.meet(unit_name(number), b"ek", NUMBERED, "")
        for step in state.todo:
            book.done(unit_name(number), step)

    threads = [threading.Thread(target=work, args=(station,)) for station in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        numbers = connection.scalars(text("SELECT number FROM units ORDER BY number")).all()
        chain = connection.execute(text("SELECT seq, previous, hash FROM entries ORDER BY seq")).all()
    assert list(numbers) == list(range(1, 4 * 4 + 4 + 1))
    assert [row.seq for row in chain] == list(range(1, len(chain) + 1))
    assert all(a.hash == b.previous for a, b in pairwise(chain))
    assert len(Reading(database).sealed_units()) == len(numbers)


def test_a_serial_number_is_given_once(book: Book) -> None:
    assert book.meet(unit_name(1), b"ek", NUMBERED, "X-7").serial == "X-7"
    with pytest.raises(KeyStoreError) as caught:
        book.meet(unit_name(2), b"ek", NUMBERED, "X-7")
    assert caught.value.code == "factory.serial-used"
    with pytest.raises(KeyStoreError) as caught:
        book.meet(unit_name(1), b"ek", NUMBERED, "X-8")
    assert caught.value.code == "factory.other-serial"
    assert book.meet(unit_name(1), b"ek", NUMBERED, "").serial == "X-7"


def test_a_certificate_is_promised_once(book: Book) -> None:
    for number in (1, 2):
        book.meet(unit_name(number), b"ek", NUMBERED, "")
    (first,) = book.reserve([_reservation(1)])
    assert book.reserve([replace(_reservation(1), x509_serial="2f", not_before="later")]) == (first,)
    for other, code in (
        (_reservation(1, b"another key"), "factory.key-changed"),
        (_reservation(2, x509_serial="3f"), "factory.key-changed"),
        (_reservation(2, b"another key"), "factory.x509-serial"),
    ):
        with pytest.raises(KeyStoreError) as caught:
            book.reserve([other])
        assert caught.value.code == code


def test_constraints_hold_what_the_program_forgets(database: Database, book: Book) -> None:
    """The tables themselves refuse a second unit, serial number, key and X.509 serial number."""
    for number in (1, 2):
        book.meet(unit_name(number), b"ek", NUMBERED, "")
    book.reserve([_reservation(1)])
    unit = {"unit": unit_name(3), "serial": "S", "number": 9, "entry": 1}
    row = {"unit": unit_name(2), "purpose": "idevid", "issuer": "ca", "x509_serial": "2f", "key_sha256": "k"}
    row |= {"not_before": "", "entry": 1}
    used = _reservation(1).key_sha256
    for table, values in (
        (schema.UNITS, unit | {"unit": unit_name(1)}),
        (schema.UNITS, unit | {"serial": "GW-000001"}),
        (schema.UNITS, unit | {"number": 1}),
        (schema.RESERVATIONS, row | {"unit": unit_name(1)}),
        (schema.RESERVATIONS, row | {"x509_serial": "1f"}),
        (schema.RESERVATIONS, row | {"key_sha256": used}),
        (schema.RESERVATIONS, row | {"unit": unit_name(9)}),
        (schema.RESERVATIONS, row | {"purpose": "server"}),
    ):
        with pytest.raises(StateError), database.writing() as connection:
            connection.execute(table.insert().values(values))
    with database.writing() as connection:  # and nothing else was wrong with these rows
        connection.execute(schema.UNITS.insert().values(unit))
        connection.execute(schema.RESERVATIONS.insert().values(row))


def test_an_unreserved_certificate_is_not_entered(book: Book) -> None:
    book.meet(unit_name(1), b"ek", NUMBERED, "")
    with pytest.raises(StateCorrupt) as caught:
        book.done(unit_name(1), StepName.ISSUE, certificates={Purpose.IDEVID: b"der"})
    assert caught.value.code == "ledger.unreserved"


def test_an_honest_ledger_passes(database: Database, book: Book, plant: Plant) -> None:
    for number in range(3):
        make_device(book, plant, number)
    found = audit(database, plant.issuer)
    assert (found.units, found.sealed, found.certificates) == (3, 3, 6)
    assert found.head == Head(*Reading(database).head())


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ('UPDATE entries SET body = \'{"serial":"X"}\' WHERE seq = 9', "ledger.chain", "entry 9"),
        ("UPDATE entries SET at = '2026-11-24T09:00:00.000000Z' WHERE seq = 5", "ledger.chain", "entry 5"),
        ("UPDATE entries SET body = '{ }' WHERE seq = 6", "ledger.chain", "entry 6"),
        ("DELETE FROM entries WHERE seq = 7", "ledger.chain", "entry 7 is missing"),
        ("UPDATE entries SET previous = 'x' WHERE seq = 8", "ledger.chain", "entry 8"),
        ("UPDATE units SET serial = 'X' WHERE serial = 'GW-000001'", "ledger.row", "GW-000001"),
        ("DELETE FROM seals WHERE entry = (SELECT MIN(entry) FROM seals)", "ledger.row", "seal"),
        (
            "UPDATE reservations SET x509_serial = 'ff' || SUBSTR(x509_serial, 3) WHERE purpose = 'iak'",
            "ledger.row",
            "reservation",
        ),
        ("DELETE FROM certificates WHERE purpose = 'iak'", "ledger.row", "certificate"),
        ("UPDATE certificates SET der = (SELECT content FROM evidence LIMIT 1)", "ledger.certificate", "GW-"),
        ("UPDATE evidence SET content = (SELECT der FROM certificates LIMIT 1)", "ledger.evidence", "entry"),
        ("DELETE FROM evidence", "ledger.evidence", "entry 3 is missing"),
    ],
)
def test_the_audit_finds_what_was_altered(
    database: Database, book: Book, plant: Plant, act: str, code: str, said: str
) -> None:
    for number in range(2):
        make_device(book, plant, number)
    without_guards(database)
    with database.writing() as connection:
        if database.postgresql:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text(act))
    with pytest.raises(StateCorrupt) as caught:
        audit(database, plant.issuer)
    assert caught.value.code == code
    assert said in caught.value.detail


def _cut(database: Database, entries: int) -> None:
    without_guards(database)
    newest = Reading(database).head()[0] - entries
    for table in reversed(schema.METADATA.sorted_tables):
        column = {"entries": "seq", "checkpoints": "seq", "evidence": None}.get(table.name, "entry")
        if column is not None:
            with database.writing() as connection:
                connection.execute(text(f"DELETE FROM {table.name} WHERE {column} > {newest}"))


def test_a_cut_end_is_found_by_who_kept_a_checkpoint(database: Database, book: Book, plant: Plant) -> None:
    make_device(book, plant, 1)
    book.station_up({})
    book.station_up({})
    kept = read_checkpoint(checkpoint(book, plant.signer, Clock().at), plant.signer.certificate)
    audit(database, plant.issuer, (kept,))
    assert kept_checkpoints(book, plant.signer.certificate) == (kept,)
    _cut(database, 2)
    audit(database, plant.issuer)  # the chain alone does not show it
    with pytest.raises(StateCorrupt) as caught:
        audit(database, plant.issuer, (kept,))
    assert caught.value.code == "ledger.checkpoint"


def test_a_ledger_that_was_written_anew_is_found(database: Database, book: Book, plant: Plant) -> None:
    make_device(book, plant, 1)
    kept = Head(3, "0" * 64)
    with pytest.raises(StateCorrupt) as caught:
        audit(database, plant.issuer, (kept,))
    assert caught.value.code == "ledger.checkpoint"


def test_another_ca_is_found(database: Database, book: Book, plant: Plant, tmp_path: Path) -> None:
    make_device(book, plant, 1)
    with plant_in(tmp_path / "other") as other, pytest.raises(StateCorrupt) as caught:
        audit(database, other.issuer)
    assert caught.value.code == "ledger.certificate"


def test_a_server_that_goes_away_is_waited_for(postgres: Postgres, plant: Plant) -> None:
    database = Database(postgres.database())
    database.prepare()
    book = Book(database, "A", Clock())
    make_device(book, plant, 1)
    postgres.kill()
    with pytest.raises(StateError) as caught:
        book.station_up({})
    assert caught.value.code == UNAVAILABLE
    postgres.start()
    book.station_up({})
    audit(database, plant.issuer)
    database.close()


def test_a_station_needs_no_more_than_to_read_and_to_insert(postgres: Postgres, plant: Plant) -> None:
    url = postgres.database()
    owner = Database(url)
    owner.prepare()
    with owner.writing() as connection:
        connection.execute(text("DROP ROLE IF EXISTS station"))
        connection.execute(text("CREATE ROLE station LOGIN"))
        connection.execute(text("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO station"))
    station = Database(url.replace("line@", "station@"))
    station.prepare()
    make_device(Book(station, "A", Clock()), plant, 1)
    with pytest.raises(StateError), station.writing() as connection:
        connection.execute(text("ALTER TABLE entries DISABLE TRIGGER ALL"))
    audit(station, plant.issuer)
    station.close()
    with owner.writing() as connection:
        connection.execute(text("DROP OWNED BY station"))
        connection.execute(text("DROP ROLE station"))
    owner.close()


@pytest.mark.parametrize("setting", ["fsync = off", "full_page_writes = off"])
def test_a_server_that_forgets_is_refused(setting: str) -> None:
    with server(f"{setting}\n") as running:
        database = Database(running.database())
        with pytest.raises(ConfigError) as caught:
            database.prepare()
        assert caught.value.code == "ledger.not-durable"
        database.close()


@pytest.mark.parametrize("address", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_only_two_databases_are_taken(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(address)
    assert caught.value.code == "ledger.url"
