"""``make proof-factory``: from bare board to IDevID, and the ledger that answers for each device years later.

``FULL=1`` takes a thousand units through each campaign; by default it is a few dozen.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from proofs import campaign, factory_chip
from proofs.campaign import Plan
from proofs.runner import Part, prove, pytests

FULL = os.environ.get("FULL") == "1"


def main() -> int:
    """Run all parts in order."""
    return prove(
        "factory",
        [
            # The line and its ledger.
            (
                "the ledger: append-only, one chain, nothing twice, audited, on SQLite and PostgreSQL",
                pytests(
                    "tests/factory/test_line_ledger.py", "tests/factory/test_line_entries.py", workers=True
                ),
            ),
            ("one station: cut off at every point", pytests("tests/factory/test_line_station.py")),
            ("manifests, and a CA elsewhere", pytests("tests/factory/test_line_documents.py")),
            ("commands, and the CA's key in an HSM", pytests("tests/factory/test_line_commands.py")),
            (
                "8 places, 2 stations, one PostgreSQL, kill -9 of each",
                killed(Plan(1000 if FULL else 40, 2, 4, postgres=True, seed=1)),
            ),
            (
                "4 places, 1 station, SQLite, kill -9",
                killed(Plan(1000 if FULL else 16, 1, 4, postgres=False, seed=2)),
            ),
            *factory_chip.PARTS,
            (
                "the line screen: labels that a scanner reads, roles, a whole shift in Chromium",
                pytests(
                    "tests/factory/test_labels.py",
                    "tests/factory/test_people.py",
                    "tests/factory/test_screen.py",
                    "tests/interop/test_screen_chromium.py",
                ),
            ),
        ],
    )


def killed(plan: Plan) -> Part:
    """One campaign as a part."""

    def part() -> dict[str, Any]:
        return campaign.run(plan)

    return part


if __name__ == "__main__":
    sys.exit(main())
