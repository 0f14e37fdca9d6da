"""What a check is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.cli.checks.patient import Patient


class Verdict(Enum):
    OK = "ok"
    WARN = "warn"  # works now, and will not for ever
    FAIL = "fail"
    SKIPPED = "skipped"  # could not be looked at, or does not apply


@dataclass(frozen=True, slots=True)
class Finding:
    """``said`` is one sentence; ``advice`` what to do, empty where nothing; ``seen`` how it was found out;
    ``about`` names the identity, server or file, where a check looks at several."""

    verdict: Verdict
    said: str
    advice: str = ""
    seen: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """``store``: the kind of key store that it is for; empty: any."""

    name: str
    looks_at: str
    look: Callable[[Patient], Iterator[Finding]]
    store: str = ""


class UnmetError(Exception):
    """What a check needs is not well; the check called *name* says so itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)
