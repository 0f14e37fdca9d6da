"""From what the agent says it did, and what the TPM was seen to do, to a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast_factory.tpm_meter import Command

LABELS: Final = {
    "PrepareAttempt": "connect to an unknown registrar, sign the voucher request",
    "RequestVoucher": "voucher: whose device is this?",
    "SeekRegistrars": "look for a registrar on the network",
    "MeetRegistrar": "is that the domain's registrar?",
    "Discover": "{protocol}: the CA's certificates and wishes",
    "MakeRequest": "new key in its hardware, CSR",
    "Enroll": "{protocol}: the certificate",
    "Resume": "{protocol}: the certificate, asked for again or confirmed",
    "ProveCredential": "new connection with the new certificate",
    "Deploy": "files for other programs",
    "RunHook": "hooks of other programs",
    "RetireKeys": "destroy the old key",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the timeline; ``commands`` are the TPM commands that fell into it."""

    name: str
    ms: float
    commands: tuple[str, ...]
    round_trips: int
    connections: int

    def told(self) -> dict[str, Any]:
        """The step as the demonstration's JSON has it."""
        return {
            "name": self.name,
            "ms": round(self.ms, 1),
            "tpm_commands": len(self.commands),
            "round_trips": self.round_trips,
        }


def lines(
    prefix: str, steps: Iterable[Mapping[str, Any]], commands: tuple[Command, ...], protocol: str = "EST"
) -> tuple[Line, ...]:
    """One line an effect, and one for the TPM commands between them (opening and flushing), if any."""
    rest = list(commands)
    result: list[Line] = []
    for step in steps:
        inside = [c for c in rest if step["began"] <= c.at <= step["ended"]]
        rest = [c for c in rest if c not in inside]
        result.append(
            Line(
                f"{prefix}: {LABELS[step['name']].format(protocol=protocol)}",
                (step["ended"] - step["began"]) * 1000,
                tuple(c.name for c in inside),
                step["round_trips"],
                step["connections"],
            )
        )
    if rest:
        spent = sum(c.milliseconds for c in rest)
        result.append(Line(f"{prefix}: flush the TPM", spent, tuple(c.name for c in rest), 0, 0))
    return tuple(result)


def table(rows: Iterable[Line]) -> list[str]:
    """The timeline for a person."""
    head = f"{'':<68} {'ms':>7} {'TPM':>4} {'round trips':>12}"
    body = [f"{r.name:<68} {r.ms:>7.0f} {len(r.commands):>4} {r.round_trips:>12}" for r in rows]
    return [head, *body]
