"""A real PostgreSQL of Debian's, in a directory of its own, on a Unix socket and no port; to be killed at
will."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_HOMES: Final = Path("/usr/lib/postgresql")
_DEADLINE: Final = 60.0
_SETTINGS: Final = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 60
recovery_init_sync_method = syncfs
shared_buffers = 16MB
"""


class MissingPostgresError(Exception):
    """Debian's package postgresql is not installed."""


class Postgres:
    """One server with one database. Use it in a ``with`` block; what it wrote is gone at the end.

    *settings* are further lines of its configuration. It runs as an unprivileged user: PostgreSQL refuses
    root, so root lends it the user ``postgres``.
    """

    def __init__(self, settings: str = "") -> None:
        homes = sorted(_HOMES.glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
        if not homes:
            raise MissingPostgresError("install the package postgresql")
        self._programs = homes[-1].parent
        # A socket's path has at most 107 characters: pytest's directories are too deep.
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))
        self._data = self.directory / "data"
        self._settings = settings
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self._server: subprocess.Popen[bytes] | None = None
        self.kills = 0

    def __enter__(self) -> Self:
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "line", "--no-sync", "-E", "UTF8")
        file = self._data / "postgresql.conf"
        file.write_text(file.read_text() + _SETTINGS.format(directory=self.directory) + self._settings)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._server.poll() is None:
            self.kill()  # nobody reads it again
        shutil.rmtree(self.directory, ignore_errors=True)

    def database(self) -> str:
        """The one database, emptied; returns its URL as the ledger takes it."""
        words = ("-q", "-h", str(self.directory), "-U", "line", "postgres")
        empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC"
        self._run("psql", "-c", "SET client_min_messages = error", "-c", empty, *words)
        return f"postgresql://line@/postgres?host={self.directory}"

    @property
    def version(self) -> str:
        return self._run("postgres", "--version").strip()

    def start(self) -> None:
        """Start, or start again after :meth:`kill`; returns once it takes connections."""
        log = (self.directory / "log").open("ab")
        command = [*self._as, str(self._programs / "postgres"), "-D", str(self._data)]
        with log:
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        ready = [
            str(self._programs / "pg_isready"),
            "-q",
            "-h",
            str(self.directory),
            "-U",
            "line",
            "-d",
            "postgres",
        ]
        end = time.monotonic() + _DEADLINE
        while subprocess.run(ready, check=False).returncode != 0:
            if self._server.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to the server and all its children, as a power cut would."""
        assert self._server is not None
        server = self._server.pid
        os.kill(server, signal.SIGSTOP)  # so that it makes no more of them meanwhile
        children = [int(p) for p in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        for pid in (*children, server):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait()
        # A server does not start while one of the old processes still holds its memory.
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.002)
        self.kills += 1

    def _run(self, program: str, *words: str) -> str:
        command = [*self._as, str(self._programs / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")
        return done.stdout
