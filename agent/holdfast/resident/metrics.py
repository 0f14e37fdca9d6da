"""Numbers for a monitoring system, as OpenMetrics text. Counters start anew with the process, as they may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from holdfast.resident.attempt import Result
from holdfast.resident.reports import Effect, IdentityTold, Report

STATES: Final = ("none", "active", "expired", "revoked")
CLOCKS: Final = ("unknown", "floor-only", "trusted")
MOST_SERIES: Final = 256
"""Outcomes by protocol and kind; a worker that invents names must not fill the memory."""

_DAY: Final = 86400.0


class Metrics:
    """Counts what attempts told."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._attempts = {"ok": 0, "trouble": 0, "broken": 0}
        self._outcomes: dict[tuple[str, str, str], int] = {}
        self._tpm_commands = 0
        self._tpm_seconds = 0.0
        self._report: Report | None = None

    def count(self, result: Result) -> None:
        """Take in one attempt."""
        if not isinstance(result, Report):
            self._attempts["broken"] += 1
            return
        self._attempts["ok" if result.trouble is None else "trouble"] += 1
        for effect in result.effects:
            self._outcome(effect)
        self._tpm_commands += result.tpm_commands
        self._tpm_seconds += result.tpm_seconds
        self._report = result

    def text(self, *, scraped: bool) -> str:
        """All of it. *scraped*: with what changes by the mere passing of time."""
        return "".join(f"{line}\n" for line in (*self._lines(scraped), "# EOF"))

    def _outcome(self, effect: Effect) -> None:
        key = (effect.protocol, effect.name, effect.result)
        if effect.protocol and (key in self._outcomes or len(self._outcomes) < MOST_SERIES):
            self._outcomes[key] = self._outcomes.get(key, 0) + 1

    def _lines(self, scraped: bool) -> Iterator[str]:
        yield from _head("holdfast_attempts", "counter", "Steps by what came of them.")
        for result, count in self._attempts.items():
            yield _sample("holdfast_attempts_total", count, result=result)
        yield from _head("holdfast_outcomes", "counter", "What protocols did, by effect and result.")
        for (protocol, effect, result), count in sorted(self._outcomes.items()):
            yield _sample("holdfast_outcomes_total", count, protocol=protocol, effect=effect, result=result)
        yield from _head("holdfast_tpm_commands", "counter", "Commands sent to the TPM.")
        yield _sample("holdfast_tpm_commands_total", self._tpm_commands)
        yield from _head("holdfast_tpm_seconds", "counter", "Time that the TPM took.", "seconds")
        yield _sample("holdfast_tpm_seconds_total", round(self._tpm_seconds, 6))
        if self._report is not None:
            yield from self._state(self._report, scraped)

    def _state(self, report: Report, scraped: bool) -> Iterator[str]:
        if report.lockout is not None:
            yield from _head(
                "holdfast_tpm_lockout_counter", "gauge", "Failed authorisations, as the TPM counts."
            )
            yield _sample("holdfast_tpm_lockout_counter", report.lockout)
        yield from _head("holdfast_clock", "stateset", "How far the clock can be believed.")
        for clock in CLOCKS:
            yield _sample("holdfast_clock", int(clock == report.clock), holdfast_clock=clock)
        yield from _head("holdfast_identity", "stateset", "State of the identity's credential.")
        for identity in report.identities:
            for state in STATES:
                yield _sample(
                    "holdfast_identity",
                    int(state == identity.state),
                    identity=identity.name,
                    holdfast_identity=state,
                )
        yield from _head("holdfast_failed_attempts", "gauge", "Attempts that failed in a row.")
        for identity in report.identities:
            yield _sample("holdfast_failed_attempts", identity.attempts, identity=identity.name)
        yield from self._expiry(report.identities, scraped)

    def _expiry(self, identities: tuple[IdentityTold, ...], scraped: bool) -> Iterator[str]:
        name = "holdfast_certificate_expiry_timestamp_seconds"
        yield from _head(name, "gauge", "End of the certificate's life, Unix time.", "seconds")
        dated = [i for i in identities if i.not_after]
        for identity in dated:
            yield _sample(name, identity.not_after, identity=identity.name)
        if scraped:
            yield from _head("holdfast_certificate_expiry_days", "gauge", "Days until the certificate ends.")
            for identity in dated:
                left = round((identity.not_after - self._wall()) / _DAY, 3)
                yield _sample("holdfast_certificate_expiry_days", left, identity=identity.name)


def _head(name: str, kind: str, explained: str, unit: str = "") -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {explained}"


def _sample(name: str, value: float, **labels: str) -> str:
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{told}}} {value}" if told else f"{name} {value}"


def _escaped(text: str) -> str:
    return text[:128].replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
