"""``make bench``: every counted figure, one table after the other. Exit status 1 if a budget is exceeded."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench import first_boot, tpm_commands


def main() -> int:
    """Print all of it."""
    with tempfile.TemporaryDirectory() as directory:
        rows = tpm_commands.measure(Path(directory))
    print("\n".join(tpm_commands.table(rows)))
    costs = first_boot.measure()
    print("\n".join(first_boot.table(costs)))
    held = all(r.ok for r in rows) and all(c.connections <= first_boot.MOST_CONNECTIONS for c in costs)
    print("every budget holds" if held else "A BUDGET IS EXCEEDED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
