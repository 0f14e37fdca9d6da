"""``holdfast run``: steps in the foreground, one worker process each, until told to stop."""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from holdfast.host.clockwatch import ClockWatch
from holdfast.host.config import load

SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 3600.0
AFTER_FAILURE_SECONDS: Final = 60.0
WORKER_SECONDS: Final = 900.0


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("run", help="repeat steps in the foreground when they are due")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ends with status 0 on SIGTERM or SIGINT, after the step that is under way.

    When the host's clock is set, the seconds to wait mean nothing any more: a step computes them anew.
    """
    load(arguments.config)  # a broken configuration is said at once, not by a worker a minute later
    with ClockWatch() as watch, _stop_signals(watch) as stopped:
        while not stopped(0):
            seconds = _seconds(_step(arguments.config))
            print(f"next step in {seconds:.0f} s", flush=True)
            if stopped(seconds):
                break
    return 0


class _Stop:
    """Whether a signal told us to stop, asked with a wait of some seconds that a set clock ends early."""

    def __init__(self, descriptor: int, watch: ClockWatch) -> None:
        self._descriptor = descriptor
        self._watch = watch
        self._told = False

    def __call__(self, seconds: float) -> bool:
        # A clock that is set all the time must not become steps all the time.
        if not self._wait(min(seconds, SHORTEST_SECONDS)) and not self._set_meanwhile():
            left = max(seconds - SHORTEST_SECONDS, 0)
            timer = self._watch.descriptor
            self._wait(left, *([] if timer is None else [timer]))
            self._set_meanwhile()
        return self._told

    def _wait(self, seconds: float, *also: int) -> bool:
        if not self._told:
            ready = select.select([self._descriptor, *also], [], [], seconds)[0]
            self._told = self._descriptor in ready
        return self._told

    def _set_meanwhile(self) -> bool:
        if not self._watch.was_set():
            return False
        print("the clock was set: due times are computed anew", flush=True)
        return True


@contextmanager
def _stop_signals(watch: ClockWatch) -> Iterator[_Stop]:
    """A pipe that Python writes a signal's number into: no lock that a handler could find taken."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    numbers = (signal.SIGTERM, signal.SIGINT)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield _Stop(reading, watch)
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)


def _step(config: object) -> float | None:
    """One worker; returns the seconds to the next step as it tells them, or None if it told nothing usable.

    The worker runs in a session of its own: a Ctrl-C for us must not cut a transaction.
    """
    command = [sys.executable, "-m", "holdfast.cli.main", "--config", str(config), "step", "--json"]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, stdout=subprocess.PIPE, timeout=WORKER_SECONDS, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return _unusable(f"worker killed after {WORKER_SECONDS:.0f} s")
    except OSError as error:
        return _unusable(f"no worker can be started: {error}")
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = None
    match told:
        case {"error": {"code": str(code), "detail": str(detail)}}:
            return _unusable(f"step failed: {code}: {detail}")
        case {"state": str(state), "wait_seconds": int() | float() as wait} if math.isfinite(wait):
            print(f"state: {state}", flush=True)
            return float(wait)
    return _unusable(f"worker ended with status {done.returncode} and without a report")


def _unusable(text: str) -> float | None:
    print(text, file=sys.stderr, flush=True)
    return None


def _seconds(wait: float | None) -> float:
    """Seconds that need no clock: the worker told a span, not a date."""
    return AFTER_FAILURE_SECONDS if wait is None else min(max(wait, SHORTEST_SECONDS), LONGEST_SECONDS)
