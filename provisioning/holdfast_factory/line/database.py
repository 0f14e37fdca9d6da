"""Opens the ledger's database, brings its tables up to date, and gives out turns at writing.

SQLite (one station, or several processes of one machine) runs with a write-ahead log and synchronous=FULL, so
that a commit survives a power cut. PostgreSQL (many stations) must have ``fsync`` on. Whoever writes takes a
turn: the whole of ``BEGIN IMMEDIATE`` there, one advisory lock here. So each entry follows the last one,
and a number is the next one, however many stations there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from holdfast.wire.errors import ConfigError, SchemaTooNew, StateError

UNAVAILABLE: Final = "ledger.unavailable"
"""The code of a StateError after which the ledger may be there again later. What was being written may stand
or not: the caller looks."""

_LOCK: Final = 0x686F6C6466617374  # "holdfast": the advisory lock of whoever writes
_BUSY: Final = 60  # seconds that SQLite waits for its turn
_IDLE: Final = 30_000  # milliseconds after which PostgreSQL ends the turn of a station that fell silent
_CONNECT: Final = 10
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Database:
    """The ledger's database at *url*: ``sqlite:///FILE``, or ``postgresql://...`` as libpq reads it.

    Every method raises StateError (:data:`UNAVAILABLE`) while the database does not answer, and
    ``ledger.broken`` for what it refuses.
    """

    def __init__(self, url: str) -> None:
        address = _address(url)
        self.name: str = address.render_as_string(hide_password=True)
        self.postgresql: bool = address.get_backend_name() == "postgresql"
        self.engine: Engine = _postgresql(address) if self.postgresql else _sqlite(address)

    def close(self) -> None:
        self.engine.dispose()

    def prepare(self) -> None:
        """Make the tables, or bring them up to date; many stations may do so at once.

        Raises ConfigError ``ledger.not-durable``, SchemaTooNew.
        """
        with self.writing() as connection:
            if self.postgresql:
                _check_durable(connection)
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            _refuse_newer(config, connection)
            command.upgrade(config, "head")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A turn: nobody else writes until it ends. What was written is durable once the block has ended, and
        nothing of it stands if the block raised."""
        with failures(self.name), self.engine.begin() as connection:
            if self.postgresql:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, which holds up nobody."""
        with failures(self.name):
            level = "REPEATABLE READ" if self.postgresql else None
            options = {"isolation_level": level} if level else {"reading": True}
            with self.engine.connect().execution_options(**options) as connection:
                yield connection
                connection.rollback()


@contextmanager
def failures(name: str) -> Iterator[None]:
    """Gives what the driver raises the names of our error family."""
    try:
        yield
    except DBAPIError as error:
        said = str(error.orig).strip()
        if error.connection_invalidated or _is_gone(error, said):
            raise StateError(UNAVAILABLE, f"{name}: {said}") from error
        raise StateError("ledger.broken", f"{name}: {said}") from error


def _is_gone(error: DBAPIError, said: str) -> bool:
    """Whether the server went away, or another's turn was too long: a later try may well succeed."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        # 08 connection, 25P03 idle too long, 40 serialization, 53 resources, 55P03 lock, 57 operator, 58
        # system
        return state[:2] in {"08", "40", "53", "57", "58"} or state in {"25P03", "55P03"}
    return "locked" in said or "connection" in said or "server" in said or "consuming input" in said


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigError("ledger.url", f"{url.rpartition('@')[2][:80]!r} is not a database URL") from error
    match address.get_backend_name():
        case "sqlite" if address.database and address.database != ":memory:":
            return address.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return address.set(drivername="postgresql+psycopg")
    raise ConfigError("ledger.url", "a ledger is sqlite:///FILE or postgresql://...")


def _sqlite(address: URL) -> Engine:
    engine = create_engine(address, connect_args={"timeout": _BUSY})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own idea of when a transaction starts is not ours
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(address: URL) -> Engine:
    options = f"-c synchronous_commit=on -c idle_in_transaction_session_timeout={_IDLE}"
    arguments = {"options": options, "connect_timeout": _CONNECT, "tcp_user_timeout": _IDLE}
    # A server that was restarted leaves dead connections in the pool: each is tried before it is used.
    return create_engine(address, connect_args=arguments, pool_pre_ping=True, pool_size=16)


def _check_durable(connection: Connection) -> None:
    off = [s for s in ("fsync", "full_page_writes") if connection.scalar(text(f"SHOW {s}")) != "on"]
    if off:
        raise ConfigError("ledger.not-durable", f"the server runs with {', '.join(off)} off")


def _refuse_newer(config: Config, connection: Connection) -> None:
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known:
        raise SchemaTooNew("ledger.schema", f"the ledger is of revision {found}, newer than this program")
