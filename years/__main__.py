"""``python -m years``: live some seeds, and tell what they came to."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

from .life import PROFILES, Life
from .tally import Tally


def main() -> int:
    """Returns 1 if a rule did not hold."""
    parser = argparse.ArgumentParser(prog="python -m years", description="ten years of a device, by seed")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="year")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--lives", type=int, default=1)
    parser.add_argument("--tell", action="store_true", help="print everything that happens")
    arguments = parser.parse_args()
    total = Tally()
    for seed in range(arguments.seed, arguments.seed + arguments.lives):
        total.add(Life(PROFILES[arguments.profile], seed, tell=_print if arguments.tell else _silent).run())
    print(*total.violations, *total.report(), sep="\n")
    return 1 if total.violations else 0


def _print(at: datetime, what: str) -> None:
    print(f"{at:%Y-%m-%d %H:%M:%S} {what}")


def _silent(_at: datetime, _what: str) -> None:
    return


if __name__ == "__main__":
    sys.exit(main())
