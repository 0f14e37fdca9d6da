"""One worker process: started, listened to within bounds, ended if it must be, reaped.

Nothing here blocks. The owner waits for ``descriptors`` to become readable or for ``deadline``, and calls
:meth:`Attempt.proceed`; it returns the result once the process is gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.resident.reports import (
    MAX_LINE,
    MAX_OUTPUT,
    Progress,
    Refusal,
    Report,
    Settings,
    Told,
    Trouble,
    UnusableError,
    read_line,
)

START_SECONDS: Final = 120.0
"""For an interpreter and its imports on the slowest board, until the first line."""

LONGEST_ALLOWANCE: Final = 1800.0
"""No single thing takes longer, whatever the worker says."""

END_SECONDS: Final = 1.0
"""From a request to end to the end by force."""

REAP_SECONDS: Final = 30.0
"""A process that SIGKILL did not end in so long hangs in the kernel; see :attr:`Attempt.stuck`."""

_READ: Final = 64 << 10


Result = Report | Refusal
"""What comes of an attempt: a report, or why there is none."""


class Attempt:
    """A running worker. Its process leads a session and a process group of its own."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], now: float, longest: float
    ) -> None:
        """Start *command*. *now* is monotonic; *longest* bounds the whole attempt. Raises OSError."""
        self.progress: Progress | None = None
        self.settings: Settings | None = None
        self._result: Result | None = None
        self._broken: Trouble | None = None
        self._partial = b""
        self._told = 0
        self._end = now + longest
        self.deadline = min(self._end, now + START_SECONDS)
        self._killed_at: float | None = None
        self._output: int | None = None
        self.pid, self._output = _spawn(command, environ)
        self._process = os.pidfd_open(self.pid)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Readable when the worker said something or ended."""
        return (self._process,) if self._output is None else (self._output, self._process)

    def stuck(self, now: float) -> bool:
        """Whether even SIGKILL does not end it: nothing that this process can do will help."""
        return self._killed_at is not None and now > self._killed_at + REAP_SECONDS

    def proceed(self, now: float) -> Result | None:
        """Take in what the worker said; end it if it is late. Returns what came of it, once it is gone."""
        self._listen(now)
        if now >= self.deadline:
            doing = f" while at {self.progress.doing}" if self.progress else ""
            self._broken = self._broken or Trouble("worker.late", f"the worker took too long{doing}")
            self.kill(now)
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PIDFD, self._process, options) is None:
            return None
        return self._ended()

    def ask_to_end(self, now: float) -> None:
        """Let it flush its hardware and go; END_SECONDS later it is killed."""
        self._signal(signal.SIGTERM)
        self._broken = self._broken or Trouble("worker.stopped", "the agent was told to stop")
        self.deadline = min(self.deadline, now + END_SECONDS)

    def kill(self, now: float) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGKILL)
        self._killed_at = self._killed_at or now
        self.deadline = now + REAP_SECONDS

    def close(self) -> None:
        """End it by force, and let go of everything. For the way out only: it waits for the end."""
        self._signal(signal.SIGKILL)
        self._reap()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _listen(self, now: float) -> None:
        """Read what there is, but not for ever: a worker that talks faster than we listen waits its turn."""
        for _ in range(MAX_OUTPUT // _READ + 1):
            if self._output is None:
                return
            try:
                data = os.read(self._output, _READ)
            except BlockingIOError:
                return
            if not data:
                os.close(self._output)
                self._output = None
                return
            self._hear(data, now)

    def _hear(self, data: bytes, now: float) -> None:
        if self._broken is not None:
            return
        self._told += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        try:
            if self._told > MAX_OUTPUT or len(self._partial) > MAX_LINE:
                raise UnusableError(f"more than {MAX_OUTPUT} bytes in all or {MAX_LINE} in a line")
            for line in lines:
                self._take(read_line(line), now)
        except UnusableError as error:
            self._partial = b""
            self._broken = Trouble("worker.garbage", f"the worker told {error}")
            self.kill(now)

    def _take(self, told: Told, now: float) -> None:
        if isinstance(told, Settings):
            self.settings = told
        elif isinstance(told, Progress):
            self.progress = told
            allowance = min(max(told.allow, 1.0), LONGEST_ALLOWANCE)
            self.deadline = min(self._end, now + allowance)
        else:
            self._result = told

    def _ended(self) -> Result:
        self._signal(signal.SIGKILL)  # what it started and left behind; before its id is free for others
        self._listen(self._end)
        code = self._reap()
        if self._broken is not None:
            return Refusal(self._broken)
        if self._result is not None:
            return self._result
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return Refusal(Trouble("worker.crashed", f"the worker {how} and without a report"))

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._process)
        if self._output is not None:
            os.close(self._output)
            self._output = None
        return os.waitstatus_to_exitcode(status)


def _spawn(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, int]:
    """Process id, and where its standard output can be read without blocking."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(reading, False)
        return os.posix_spawn(
            command[0],
            list(command),
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        ), reading
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
