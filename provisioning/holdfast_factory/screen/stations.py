"""The stations that this screen starts and stops: one ``holdfast-factory run`` each.

A station is a process of its own. It outlives no screen, but a screen that dies costs no unit: the ledger
knows where each one stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from holdfast.wire.errors import ConfigError

PATIENCE: Final = 30.0
"""Seconds that a station gets to finish the step at hand before it is killed."""

Command = Callable[[str, str], Sequence[str]]
"""(station, place) to the words of a command."""


class Stations:
    """Starts and stops them by name. *places* says where each finds its unit."""

    def __init__(self, places: Mapping[str, str], command: Command) -> None:
        self.places = dict(places)
        self._command = command
        self._running: dict[str, asyncio.subprocess.Process] = {}

    def running(self, name: str) -> bool:
        """Whether the station's process lives."""
        process = self._running.get(name)
        return process is not None and process.returncode is None

    def any_running(self) -> bool:
        """Whether one of them does."""
        return any(self.running(name) for name in self.places)

    async def start(self, name: str) -> bool:
        """Start *name*; False if it runs already. Raises ConfigError: not one of ours."""
        place = self._place(name)
        if self.running(name):
            return False
        self._running[name] = await asyncio.create_subprocess_exec(
            *self._command(name, place),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        return True

    async def stop(self, name: str) -> bool:
        """Let *name* finish and end; False if it does not run. Raises ConfigError: not one of ours."""
        self._place(name)
        process = self._running.pop(name, None)
        if process is None or process.returncode is not None:
            return False
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()
        return True

    async def stop_all(self) -> None:
        """At the end of the screen."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(self.stop(name) for name in self.places))

    def _place(self, name: str) -> str:
        if name not in self.places:
            raise ConfigError("factory.station", f"{name!r} is none of {', '.join(sorted(self.places))}")
        return self.places[name]
