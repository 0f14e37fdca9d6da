"""What a person, or a program, sees of a shift: one line a unit, and how the line does."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast_factory.line.station import Ending, Result

_COLOURS = {
    Ending.SEALED: "green",
    Ending.ALREADY: "cyan",
    Ending.WAITING: "yellow",
    Ending.FAILED: "bold red",
}


class JsonLines:
    """One JSON object a unit, for programs."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._lock = threading.Lock()
        self.failed = 0

    def ended(self, place: str, result: Result) -> None:
        self.failed += result.ending is Ending.FAILED
        with self._lock:
            print(json.dumps({"place": place, **asdict(result)}), file=self._out, flush=True)

    def waiting(self, why: str) -> None:
        with self._lock:
            print(json.dumps({"waiting": why}), file=self._out, flush=True)


class Bar:
    """A progress bar of *units* (None: without an end), and above it a line for each unit. A ``with``
    block."""

    def __init__(self, station: str, units: int | None, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=console or Console(),
        )
        self._task = self._progress.add_task(escape(station), total=units, rate="")
        self.failed = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def ended(self, place: str, result: Result) -> None:
        self.failed += result.ending is Ending.FAILED
        colour = _COLOURS[result.ending]
        said = f"{result.serial or '?':<16} [{colour}]{result.ending}[/]"
        if result.ending is Ending.FAILED:
            said += f" at {result.step}: {escape(result.code)}: {escape(result.detail)}"
        self._progress.console.print(f"{said}  [dim]{escape(place)}[/]", highlight=False)
        if result.ending is Ending.SEALED:
            self._progress.advance(self._task)
            task = self._progress.tasks[0]
            spent = task.elapsed or 0.0
            if spent > 0:
                self._progress.update(self._task, rate=f"{task.completed / spent * 3600:.0f} an hour")

    def waiting(self, why: str) -> None:
        self._progress.console.print(f"[yellow]waiting for the ledger[/]: {escape(why)}", highlight=False)
