"""The resident agent: it knows when a worker is due, and never how the work is done.

It is one part of a loop: the loop calls :meth:`Agent.tick` when a descriptor of the running worker is
readable or when ``next_at`` has come. All times are monotonic seconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from holdfast.host.journal import Log
from holdfast.resident.attempt import Attempt, Result
from holdfast.resident.narrator import Narrator
from holdfast.resident.reports import Progress, Refusal, Report, Settings, Trouble

SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 6 * 3600.0
"""At the latest then a worker looks whether something is due; a worker that finds nothing writes nothing."""

FIRST_RETRY: Final = 60.0
LONGEST_RETRY: Final = 3600.0
"""After workers that gave no report."""

LOCKED_RETRY: Final = 15.0
"""After somebody else's step was found under way."""

OVERDUE: Final = 60.0
"""A due time that passed so long ago without a worker: this process does not work as it should."""

Waiter = Callable[[Progress | Report | Refusal], None]
"""Hears the progress of the attempt that serves it, and its result last."""


class Want(NamedTuple):
    """What somebody asked for: identities to renew now, and whether waits after a failure are over."""

    renew: frozenset[str] = frozenset()
    hasten: bool = False


class Starter(Protocol):
    """Starts a worker. Raises OSError."""

    def __call__(self, want: Want, now: float, longest: float) -> Attempt: ...


class Agent:
    """Starts workers, one at a time, and keeps what they told."""

    def __init__(
        self, start: Starter, log: Log, *, random: Callable[[], float] = lambda: os.urandom(1)[0] / 255
    ) -> None:
        self._start = start
        self._narrator = Narrator(log)
        self._random = random
        self._due = -math.inf
        self._want: Want | None = None
        self._queued: list[Waiter] = []
        self._served: list[Waiter] = []
        self._failures = 0
        self._stopping = False
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.settings = Settings()
        self.report: Report | None = None
        self.refusal: Refusal | None = None
        self.finished: list[Callable[[Result], None]] = []
        self.configured: list[Callable[[Settings], None]] = []
        self.serial = 0
        """Grows with everything that :attr:`report`, :attr:`refusal` or :attr:`progress` could show anew."""

    # --- what others ask and are told ----------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """What the running worker is at."""
        return self.attempt.progress if self.attempt is not None else None

    def ask(self, want: Want, waiter: Waiter | None = None) -> None:
        """Run a worker now, or after the one that runs. Several requests are served by one worker."""
        before = self._want or Want()
        self._want = Want(before.renew | want.renew, before.hasten or want.hasten)
        if waiter is not None:
            self._queued.append(waiter)

    def forget(self, waiter: Waiter) -> None:
        """Nobody listens there any more."""
        for waiters in (self._queued, self._served):
            if waiter in waiters:
                waiters.remove(waiter)

    def seconds_to_due(self, now: float) -> float:
        """Until the next worker starts; 0 while one runs."""
        return 0.0 if self.attempt is not None else max(0.0, self._due - now)

    def healthy(self, now: float) -> bool:
        """Whether this process still does its work. A worker that hangs is no fault of ours; one that cannot
        even be killed, or a step that is due and not made, is: then the service manager must act."""
        if self.attempt is not None:
            return not self.attempt.stuck(now)
        return self._stopping or now < self._due + OVERDUE or self._due == -math.inf

    @property
    def stopped(self) -> bool:
        """Told to stop, and no worker runs any more."""
        return self._stopping and self.attempt is None

    def stop(self, now: float) -> None:
        """Start nothing any more, and let the running worker end in good order."""
        self._stopping = True
        if self.attempt is not None:
            self.attempt.ask_to_end(now)

    # --- the part of a loop --------------------------------------------------------------------------

    def next_at(self) -> float:
        """When :meth:`tick` must be called at the latest."""
        if self.attempt is not None:
            return self.attempt.deadline
        return -math.inf if self._stopping or self._want is not None else self._due

    def tick(self, now: float) -> None:
        """Do what can be done now. Never blocks."""
        if self.attempt is not None:
            self._follow(self.attempt, now)
        elif not self._stopping and (self._want is not None or now >= self._due):
            self._begin(now)

    def _begin(self, now: float) -> None:
        want, self._want = self._want or Want(), None
        self._served, self._queued = self._queued, []
        self.serial += 1
        self.attempts += 1
        try:
            self.attempt = self._start(want, now, self.settings.worker_seconds)
        except OSError as error:
            self._end(Refusal(Trouble("worker.no-start", f"no worker can be started: {error.strerror}")), now)

    def _follow(self, attempt: Attempt, now: float) -> None:
        before, knew = attempt.progress, attempt.settings
        result = attempt.proceed(now)
        if attempt.settings is not None and attempt.settings is not knew:
            self.settings = attempt.settings
            self.serial += 1
            for configured in self.configured:
                configured(self.settings)
        if attempt.progress is not None and attempt.progress != before:
            self.serial += 1
            for waiter in tuple(self._served):
                waiter(attempt.progress)
        if result is not None:
            self.attempt = None
            self._end(result, now)

    def _end(self, result: Result, now: float) -> None:
        if isinstance(result, Report):
            self._failures = 0
            self._narrator.report(self.report, result)
            self.report, self.refusal = result, None
            self._due = now + min(max(result.wait, SHORTEST_WAIT), LONGEST_WAIT)
        else:
            self.refusal = result
            self._due = now + self._retry(result)
            if not self._stopping:
                self._narrator.refusal(result)
        self.serial += 1
        for finished in self.finished:
            finished(result)
        served, self._served = self._served, []
        for waiter in served:
            waiter(result)

    def _retry(self, refusal: Refusal) -> float:
        if refusal.trouble.code == "state.locked":
            return LOCKED_RETRY
        self._failures += 1
        if refusal.trouble.retry == "operator":
            return LONGEST_RETRY
        longest: float = min(FIRST_RETRY * 2 ** min(self._failures - 1, 10), LONGEST_RETRY)
        return longest * (0.5 + 0.5 * self._random())
