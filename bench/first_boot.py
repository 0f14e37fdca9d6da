"""What a first boot and a renewal cost on the real stack, counted: TPM commands, round trips, connections.

Beside them stands what the RFCs cannot do without. Milliseconds are printed, never judged: they are of a
software TPM on loopback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from demo.stage import Run, Stage

MINIMAL: Final = {
    "first boot": (
        5,
        "requestvoucher, voucher_status, csrattrs, simpleenroll, enrollstatus: RFC 8995 §5.6, §5.7, §5.9; "
        "we also fetch cacerts (SHOULD, §5.9.1)",
    ),
    "renewal": (
        1,
        "simplereenroll: RFC 7030 §4.2.2; we also poll cacerts (§4.1) and csrattrs, and prove the new "
        "certificate by use before the old key goes",
    ),
}
MOST_CONNECTIONS: Final = 3
"""One provisional and at most two further ones."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One step of the agent, counted from outside where that is possible."""

    name: str
    tpm_commands: tuple[str, ...]
    round_trips: int
    connections: int
    milliseconds: float

    @property
    def minimal_round_trips(self) -> int:
        return MINIMAL[self.name][0]

    def figures(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tpm_commands": len(self.tpm_commands),
            "round_trips": self.round_trips,
            "minimal_round_trips": self.minimal_round_trips,
            "connections": self.connections,
            "ms": round(self.milliseconds, 1),
        }


def measure() -> tuple[Cost, ...]:
    """First boot and renewal of one factory-fresh device. Raises RuntimeError if one of them fails."""
    with Stage() as stage:
        stage.hardware.take()
        first = _cost(stage, "first boot", stage.agent("step", "--json"))
        second = _cost(stage, "renewal", stage.agent("step", "--json", "--renew", "ldevid"))
    return first, second


def _cost(stage: Stage, name: str, run: Run) -> Cost:
    if run.status != 0:
        raise RuntimeError(f"{name} failed: {run.output} {run.errors}")
    steps: list[Mapping[str, Any]] = run.told["steps"]
    return Cost(
        name,
        tuple(c.name for c in stage.hardware.take()),
        sum(s["round_trips"] for s in steps),
        sum(s["connections"] for s in steps),
        1000 * (steps[-1]["ended"] - steps[0]["began"]),
    )


def table(costs: tuple[Cost, ...]) -> list[str]:
    """The figures for a person."""
    lines = []
    for cost in costs:
        least, why = MINIMAL[cost.name]
        lines += [
            f"{cost.name}: {len(cost.tpm_commands)} TPM commands, {cost.round_trips} round trips "
            f"(least possible: {least}), {cost.connections} connections, {cost.milliseconds:.0f} ms",
            f"    least: {why}",
            f"    TPM: {', '.join(cost.tpm_commands)}",
        ]
    return lines
