"""The moments of a first boot, from power-on to a consumer that serves with the new identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from machine.gateway import ACTIVE, Gateway

_STAMPS = (
    "systemctl show --property ActiveEnterTimestampMonotonic,ExecMainStartTimestampMonotonic,CPUUsageNSec "
)
_VOUCHER = "RequestVoucher"


@dataclass(frozen=True)
class Moment:
    """``seconds`` since power-on."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Timeline:
    """``agent``: seconds from its start to the LDevID; ``exchange``: of these, what its steps took;
    ``processor``: seconds of processor time of the whole service."""

    moments: tuple[Moment, ...]
    agent: float
    exchange: float
    processor: float

    def __str__(self) -> str:
        width = max(len(m.name) for m in self.moments)
        lines, before = [], 0.0
        for moment in self.moments:
            lines.append(f"{moment.name:<{width}}  {moment.seconds:6.2f} s  (+{moment.seconds - before:.2f})")
            before = moment.seconds
        lines.append(
            f"power-on to LDevID {self.at('LDevID'):.2f} s, the agent's share {self.agent:.2f} s: "
            f"its steps {self.exchange:.2f} s, the rest the start of Python and its modules"
        )
        return "\n".join(lines)

    def at(self, name: str) -> float:
        return next(m.seconds for m in self.moments if m.name == name)

    def record(self, note: Callable[[str, object], None]) -> None:
        """As properties of a test: whole milliseconds."""
        note("timeline", str(self))
        for moment in self.moments:
            note(f"boot_ms: {moment.name}", round(moment.seconds * 1000))
        note("boot_ms: the agent's share", round(self.agent * 1000))
        note("boot_ms: of that, its steps", round(self.exchange * 1000))


def read(gateway: Gateway) -> Timeline:
    """Of a gateway whose consumer runs."""
    # The guest's own clock began with its kernel; the quickest message between us says when that was.
    kernel = min(e.host - e.guest for e in gateway.entries) - gateway.powered_on
    device, agent, consumer = (
        _unit(gateway, unit) for unit in ("dev-tpmrm0.device", "holdfast.service", "mosquitto.service")
    )
    active = gateway.message(ACTIVE)
    effects = [e for e in gateway.entries if e.get("HOLDFAST_EFFECT") and e.get("MESSAGE").endswith(" ms)")]
    took = [int(e.get("MESSAGE").rpartition("(")[2].removesuffix(" ms)")) / 1000 for e in effects]
    voucher = next(i for i, e in enumerate(effects) if e.get("HOLDFAST_EFFECT") == _VOUCHER)
    # The worker reports when it ends: its steps are laid back from there.
    reported = active.guest
    moments = [
        ("power-on", 0.0),
        ("kernel", kernel),
        ("systemd", kernel + _systemd(gateway)),
        ("TPM", kernel + device["ActiveEnterTimestampMonotonic"]),
        ("agent started", kernel + agent["ExecMainStartTimestampMonotonic"]),
        ("READY", kernel + agent["ActiveEnterTimestampMonotonic"]),
        ("voucher", kernel + reported - sum(took[voucher + 1 :])),
        ("LDevID", kernel + reported),
        ("consumer up", kernel + consumer["ActiveEnterTimestampMonotonic"]),
    ]
    return Timeline(
        tuple(Moment(*m) for m in moments),
        agent=reported - agent["ExecMainStartTimestampMonotonic"],
        exchange=sum(took),
        processor=agent["CPUUsageNSec"] / 1000,
    )


def _unit(gateway: Gateway, unit: str) -> dict[str, float]:
    """Its numbers in seconds (those of the processor in thousands of them)."""
    lines = gateway.ask(_STAMPS + unit).splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: int(value) / 1e6 for name, _, value in pairs if value.isdecimal()}


def _systemd(gateway: Gateway) -> float:
    """When the first process began to run as the manager of the system."""
    return int(gateway.ask("systemctl show --property UserspaceTimestampMonotonic --value")) / 1e6
