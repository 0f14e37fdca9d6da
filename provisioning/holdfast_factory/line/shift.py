"""A shift of one station: at each of its places unit after unit, until it is told to stop.

A place is polled until a unit answers there, and after a unit until another one does. If the ledger does not
answer, the station waits and takes the same unit up again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from holdfast.wire.errors import KeyStoreUnavailable, StateError
from holdfast_factory.line.database import UNAVAILABLE
from holdfast_factory.line.station import Ending, Result, Station
from holdfast_factory.unit import Examiner, Places

T = TypeVar("T")
POLL: Final = 0.2
_LONGEST: Final = 5.0


class Watcher(Protocol):
    """Is told what happens, from the thread of each place."""

    def ended(self, place: str, result: Result) -> None:
        """A unit left the station."""
        ...

    def waiting(self, why: str) -> None:
        """The ledger does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """``units``: how many are to be sealed before the shift is over, None for no end. ``once``: each place
    serves one unit. ``poll``: seconds between looks for a unit."""

    units: int | None = None
    once: bool = False
    poll: float = POLL


class Shift:
    """*begin* makes the ledger ready, and is tried until it answers. *scan* gives the serial number of the
    next unit at a place, or nothing to have the line number it."""

    def __init__(
        self,
        station: Station,
        places: Sequence[str],
        opened: Places,
        examiner: Callable[[str], Examiner],
        *,
        watcher: Watcher,
        limits: Limits,
        begin: Callable[[], None],
        scan: Callable[[], str],
    ) -> None:
        self._station = station
        self._places = tuple(places)
        self._opened = opened
        self._examiner = examiner
        self._watcher = watcher
        self._limits = limits
        self._begin = begin
        self._scan = scan
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sealed = 0
        self._fault: BaseException | None = None

    def stop(self) -> None:
        """Let every place end the unit at hand. May be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until the end of the shift. Raises what kept a place from going on: its ledger is broken."""
        self._patiently(self._begin)
        threads = [threading.Thread(target=self._serve, args=(place,)) for place in self._places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._fault is not None:
            raise self._fault

    def _serve(self, place: str) -> None:
        try:
            last = ""
            while not self._stop.is_set():
                result = self._next(place, last)
                if result is None:
                    self._stop.wait(self._limits.poll)
                    continue
                last = result.unit or last
                self._count(place, result)
                if self._limits.once:
                    return
        except BaseException as error:  # noqa: BLE001 - carried to the caller of run
            self._fault = self._fault or error
            self._stop.set()

    def _next(self, place: str, last: str) -> Result | None:
        """The result of the unit at *place*; None if there is none, or still the *last* one."""
        scanned: list[str] = []

        def work() -> Result | None:
            try:
                unit = self._opened(place)
            except KeyStoreUnavailable:
                return None
            try:
                if not scanned:
                    scanned.append(self._scan())
                return self._station.work(unit, self._examiner(place), scanned=scanned[0], unlike=last)
            finally:
                unit.close()

        return self._patiently(work)

    def _patiently(self, act: Callable[[], T]) -> T | None:
        """The result of *act*, which is tried again while the ledger does not answer; None if the shift
        ends."""
        pause = self._limits.poll
        while not self._stop.is_set():
            try:
                return act()
            except StateError as error:
                if error.code != UNAVAILABLE:
                    raise
                self._watcher.waiting(str(error))
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST)
        return None

    def _count(self, place: str, result: Result) -> None:
        with self._lock:
            self._sealed += result.ending is Ending.SEALED
            if self._limits.units is not None and self._sealed >= self._limits.units:
                self._stop.set()
        self._watcher.ended(place, result)
