"""What a worker tells the resident process, line by line: read with suspicion, for a worker may be wrong.

::

    {"settings": {...}}      once, as soon as the configuration is read
    {"progress": {...}}      before each thing that takes time: what, and how long it may take
    {"state": ..., ...}      the report, last; or {"error": {...}} instead of it

A line that is not as described raises :class:`UnusableError`, and the attempt is over.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple

MAX_LINE: Final = 256 << 10
MAX_OUTPUT: Final = 1 << 20
"""A worker tells a few kilobytes; one that tells more is broken."""

MAX_TEXT: Final = 2000
MAX_IDENTITIES: Final = 16
MAX_ENTRIES: Final = 256

LONGEST_WAIT: Final = 7 * 86400.0


class UnusableError(Exception):
    """A worker said what a worker does not say."""


class IdentityFiles(NamedTuple):
    """An identity that the configuration names, and where its chain is once it has one."""

    name: str
    chain: str


class Settings(NamedTuple):
    """The part of the configuration that the resident process needs; the worker reads it, the agent never."""

    identities: tuple[IdentityFiles, ...] = ()
    version: str = ""
    group: str = ""
    metrics_file: str = ""
    metrics_listen: tuple[str, int] | None = None
    worker_seconds: float = 3600.0


class Progress(NamedTuple):
    """What the worker is about to do, for which identity ("" for none), and in how many seconds at most."""

    doing: str
    identity: str
    allow: float


class Trouble(NamedTuple):
    """The last failure that nothing has cured yet."""

    code: str
    detail: str
    clause: str = ""
    retry: str = "backoff"
    at: str = ""


class IdentityTold(NamedTuple):
    """One identity as the worker left it. ``not_after`` is in Unix seconds, 0 without a certificate."""

    name: str
    state: str
    generation: int
    not_after: float
    transaction: str
    transaction_id: str
    protocol: str
    attempts: int


class Effect(NamedTuple):
    """One thing that the worker did."""

    name: str
    identity: str
    protocol: str
    transaction: str
    result: str
    seconds: float


class Report(NamedTuple):
    """A step as it ended: state in words, seconds to the next one, and numbers to publish."""

    state: str
    wait: float
    trouble: Trouble | None = None
    note: str = ""
    identities: tuple[IdentityTold, ...] = ()
    effects: tuple[Effect, ...] = ()
    clock: str = ""
    tpm_commands: int = 0
    tpm_seconds: float = 0.0
    lockout: int | None = None


class Refusal(NamedTuple):
    """A step that could not begin or end: the error that it told."""

    trouble: Trouble


Told = Settings | Progress | Report | Refusal


def read_line(line: bytes) -> Told:
    """The meaning of one *line*. Raises UnusableError."""
    if len(line) > MAX_LINE:
        raise UnusableError(f"a line of more than {MAX_LINE} bytes")
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise UnusableError(f"a line that is no JSON: {line[:80]!r}") from None
    fields = Fields(told)
    if "settings" in fields:
        return _settings(fields.part("settings"))
    if "progress" in fields:
        part = fields.part("progress")
        return Progress(part.text("doing"), part.text("identity", ""), part.number("allow"))
    if "error" in fields:
        return Refusal(_trouble(fields.part("error")))
    return _report(fields)


class Fields:
    """An object of JSON whose members are asked for by kind. Raises UnusableError."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise UnusableError(f"{type(value).__name__} where an object belongs")
        self._members: dict[str, Any] = value

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def part(self, name: str) -> Fields:
        return Fields(self._members.get(name))

    def parts(self, name: str, most: int) -> tuple[Fields, ...]:
        values = self._members.get(name)
        if values is None:
            return ()
        if not isinstance(values, list) or len(values) > most:
            raise UnusableError(f"{name}: not a list of at most {most}")
        return tuple(Fields(value) for value in values)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._members.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise UnusableError(f"{name}: no text")
        return value[:MAX_TEXT]

    def number(self, name: str, default: float | None = None) -> float:
        value = self._members.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise UnusableError(f"{name}: no number")
        return float(value)

    def count(self, name: str, default: int | None = None) -> int:
        return int(self.number(name, default))


def _settings(part: Fields) -> Settings:
    listen = part.part("metrics_listen") if "metrics_listen" in part else None
    return Settings(
        identities=tuple(
            IdentityFiles(i.text("name"), i.text("chain")) for i in part.parts("identities", MAX_IDENTITIES)
        ),
        version=part.text("version", ""),
        group=part.text("group", ""),
        metrics_file=part.text("metrics_file", ""),
        metrics_listen=(listen.text("host"), listen.count("port")) if listen is not None else None,
        worker_seconds=part.number("worker_seconds"),
    )


def _report(fields: Fields) -> Report:
    agent = fields.part("agent")
    return Report(
        state=fields.text("state"),
        wait=min(max(fields.number("wait_seconds"), 0.0), LONGEST_WAIT),
        trouble=_trouble(fields.part("trouble")) if "trouble" in fields else None,
        note=fields.text("note", ""),
        identities=tuple(map(_identity, agent.parts("identities", MAX_IDENTITIES))),
        effects=tuple(map(_effect, fields.parts("steps", MAX_ENTRIES))),
        clock=agent.text("clock", ""),
        tpm_commands=agent.count("tpm_commands", 0),
        tpm_seconds=agent.number("tpm_seconds", 0),
        lockout=agent.count("lockout") if "lockout" in agent else None,
    )


def _trouble(part: Fields) -> Trouble:
    return Trouble(
        part.text("code"),
        part.text("detail", ""),
        part.text("clause", ""),
        part.text("retry", "backoff"),
        part.text("at", ""),
    )


def _identity(part: Fields) -> IdentityTold:
    return IdentityTold(
        part.text("name"),
        part.text("state"),
        part.count("generation", 0),
        part.number("not_after", 0),
        part.text("transaction", "none"),
        part.text("transaction_id", ""),
        part.text("protocol", ""),
        part.count("attempts", 0),
    )


def _effect(part: Fields) -> Effect:
    return Effect(
        part.text("name"),
        part.text("identity", ""),
        part.text("protocol", ""),
        part.text("transaction", ""),
        part.text("result", ""),
        max(0.0, part.number("ended", 0) - part.number("began", 0)),
    )
