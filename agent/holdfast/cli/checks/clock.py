"""How far this host's clock can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import timestamp
from holdfast.wire.model import ClockState

SYNCHRONISE: Final = "See why time synchronisation does not work: timedatectl timesync-status"


def look(patient: Patient) -> Iterator[Finding]:
    """Compares the clock with the time floor, and asks the kernel whether anybody keeps it."""
    now, policy = patient.now, patient.settings.clock
    floor = timestamp(now.floor)
    seen = f"the clock against the record's time floor {floor}; adjtimex(2); policy {policy!r}"
    match now.state:
        case ClockState.TRUSTED:
            yield Finding(Verdict.OK, f"the clock is believed and says {timestamp(now.now)}", seen=seen)
        case ClockState.FLOOR_ONLY:
            said = f"nobody has set this clock that is trusted; it is believed only not to be before {floor}"
            also = "or set clock: trusted in the configuration, if the hardware clock is good"
            yield Finding(Verdict.WARN, said, f"{SYNCHRONISE}; {also}.", seen)
        case ClockState.UNKNOWN:
            said = f"the clock stands before {floor}, which has passed already"
            yield Finding(Verdict.FAIL, said, f"{SYNCHRONISE}, or set the clock: timedatectl set-time", seen)


CHECK: Final = Check("clock", "how far the clock can be believed", look)
