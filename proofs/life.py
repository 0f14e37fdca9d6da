"""``make proof-life``: what ten unattended years must show."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from proofs.runner import FailedError, prove, pytests
from years import document
from years.fleet import RECOVERY_GOAL, STEADY_GOAL
from years.many import Share, live

FULL: Final = os.environ.get("FULL") == "1"
LIVES: Final = (Share("week", 200), Share("year", 5000)) if FULL else (Share("week", 10), Share("year", 990))
"""The seeds from 0 on of each profile. A life with certificates of 7 days has 780 renewals, and costs as much
as twenty with certificates of a year."""


def main() -> int:
    """Run all parts in order."""
    return prove(
        "life",
        [
            (
                "the table is complete, a model walks it, and the diagram is fresh",
                pytests("tests/life/test_machine.py", "tests/life/test_record.py"),
            ),
            (
                "renewal moments, backoff and ladder rules",
                pytests(
                    "tests/life/test_renewal.py",
                    "tests/life/test_ladder.py",
                    "tests/life/test_field_lessons.py",
                ),
            ),
            ("each rule of the judge can fail", pytests("tests/lives", workers=True, apart=True)),
            ("lives of ten years", lives),
            ("a fleet of a million", fleet),
            (
                "power loss at every system call of a commit and a deployment",
                pytests("tests/host/test_power_loss.py"),
            ),
            (
                "recovery, time, deployment",
                pytests(
                    "tests/lifecycle/test_setbacks.py",
                    "tests/lifecycle/test_turns.py",
                    "tests/lifecycle/test_recovery.py",
                    "tests/lifecycle/test_time.py",
                    "tests/lifecycle/test_deployment.py",
                    "tests/host/test_deploy.py",
                    "tests/host/test_clock.py",
                    "tests/host/test_clockwatch.py",
                    workers=True,
                ),
            ),
            (
                "the own certificate revoked, asked and judged",
                pytests(
                    "tests/life/test_standing.py",
                    "tests/wire/test_revocation_ocsp.py",
                    "tests/wire/test_revocation_crl.py",
                    "tests/lifecycle/test_revocation.py",
                    "tests/interop/test_openssl_revocation.py",
                    workers=True,
                ),
            ),
            ("a TPM that was cleared", pytests("tests/lifecycle/test_cleared_tpm.py")),
            (
                "ladder, several identities, change of root",
                pytests(
                    "tests/lifecycle/test_ladder_life.py",
                    "tests/lifecycle/test_identities.py",
                    "tests/lifecycle/test_rollover_life.py",
                    "tests/life/test_anchors.py",
                    workers=True,
                ),
            ),
            (
                "doctor, why, plan",
                pytests(
                    "tests/cli/test_doctor.py",
                    "tests/cli/test_cli_stuck.py",
                    "tests/cli/test_cli_ladder.py",
                    "tests/cli/test_cli_states.py",
                    workers=True,
                ),
            ),
        ],
    )


def lives() -> dict[str, Any]:
    """Nothing is lost in any of them, and every fault that had an appointment met somebody."""
    total = live(LIVES)
    print("\n".join(total.report()), flush=True)
    if total.violations:
        raise FailedError("\n".join(total.violations[:20]))
    if total.unmet:
        raise FailedError(f"faults that met nobody: {total.unmet}")
    return total.figures()


def fleet() -> dict[str, Any]:
    """Both goals, for every fleet; and the page that shows them is fresh."""
    observed = document.loads()
    figures = {
        load.fleet.name: {"steady": load.steady_peak, "recovery": load.recovery_peak, "late": load.late}
        for load in observed
    }
    over = [
        load.fleet.name
        for load in observed
        if load.steady_peak > STEADY_GOAL or load.recovery_peak > RECOVERY_GOAL or load.late
    ]
    if over:
        raise FailedError(f"over a goal: {', '.join(over)}: {figures}")
    if stale := document.stale(observed):
        raise FailedError(f"make docs: {', '.join(stale)} is stale")
    return {"devices": observed[0].fleet.devices, "peak to mean": figures}


if __name__ == "__main__":
    sys.exit(main())
