"""What lives came to, as numbers that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .appointments import EXCUSED, FAULTS


@dataclass(slots=True)
class Tally:
    """``violations`` name the seed; ``longest_cure`` is from the end of the last misfortune to a device that
    is well; ``without`` the time without a usable credential, whatever the cause."""

    lives: int = 0
    steps: int = 0
    renewals: int = 0
    bootstraps: int = 0
    cuts: int = 0
    requests: int = 0
    most_steps_a_day: int = 0
    longest_cure: timedelta = timedelta(0)
    lived: timedelta = timedelta(0)
    without: timedelta = timedelta(0)
    misfortunes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.lives += other.lives
        self.steps += other.steps
        self.renewals += other.renewals
        self.bootstraps += other.bootstraps
        self.cuts += other.cuts
        self.requests += other.requests
        self.most_steps_a_day = max(self.most_steps_a_day, other.most_steps_a_day)
        self.longest_cure = max(self.longest_cure, other.longest_cure)
        self.lived += other.lived
        self.without += other.without
        self.misfortunes += other.misfortunes
        self.faults += other.faults
        self.violations += other.violations

    @property
    def unmet(self) -> dict[str, list[str]]:
        """The kinds of fault that met nobody, by their place."""
        missing: dict[str, list[str]] = {}
        for where, kind in FAULTS:
            if f"{where}:{kind}" not in self.faults:
                missing.setdefault(where, []).append(kind)
        return missing

    @property
    def _missing(self) -> int:
        return sum(map(len, self.unmet.values()))

    def figures(self) -> dict[str, Any]:
        """For a proof's closing line."""
        return {
            "lives": self.lives,
            "years": round(self.lived / timedelta(days=365)),
            "certificates": self.renewals,
            "misfortunes": self.misfortunes.total(),
            "power cuts in a step": self.cuts,
            "kinds of server fault met": len(FAULTS) - self._missing,
            "of": len(FAULTS),
            "excused": len(EXCUSED),
            "not met": self.unmet,
            "longest cure, hours": round(self.longest_cure / timedelta(hours=1), 1),
            "violations": len(self.violations),
        }

    def report(self) -> list[str]:
        """Lines for a person."""
        years, without = (
            self.lived / timedelta(days=365),
            self.without / max(self.lived, timedelta(seconds=1)),
        )
        return [
            f"{self.lives} lives, {years:.0f} years: {self.steps} steps, {self.requests} requests, "
            f"{self.renewals} certificates, {self.bootstraps} attempts to bootstrap, "
            f"{self.cuts} power cuts in the middle of a step",
            f"{self.misfortunes.total()} misfortunes: "
            + ", ".join(f"{name} {count}" for name, count in self.misfortunes.most_common()),
            f"{self.faults.total()} answers spoiled by {len(FAULTS) - self._missing} of {len(FAULTS)} kinds "
            f"of fault, and {len(EXCUSED)} are excused; "
            "not by "
            + ("; ".join(f"{at}: {', '.join(kinds)}" for at, kinds in self.unmet.items()) or "none"),
            f"without a usable credential {without:.2%} of the time; longest cure {self.longest_cure}; "
            f"most steps a day {self.most_steps_a_day}",
            f"{len(self.violations)} violations",
        ]
