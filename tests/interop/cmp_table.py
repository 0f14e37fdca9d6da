"""What ran against whom, as tables of a page in ``docs``: a run notes what it saw, the page must say it.

``HOLDFAST_WRITE_TABLES=1`` writes the page instead of comparing it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "cmp.md"
SEEN: dict[tuple[str, str, str], str] = {}
"""(table, row, column) to what happened."""


def note(table: str, row: str, column: str, result: str) -> None:
    """Something was shown."""
    SEEN[table, row, column] = result


def rendered(table: str, columns: Sequence[str]) -> str:
    """The rows of *table* in the order in which they were first seen."""
    rows = list(dict.fromkeys(row for t, row, _ in SEEN if t == table))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [SEEN.get((table, row, column), "") for column in columns]
        lines.append("| " + " | ".join((row, *cells)) + " |")
    return "\n".join(lines)


def check(table: str, columns: Sequence[str], page_file: Path = PAGE) -> None:
    """The page says exactly what ran."""
    begin, end = f"<!-- {table}: written by the tests -->\n", f"\n<!-- end of {table} -->"
    page = page_file.read_text(encoding="utf-8")
    head, found, rest = page.partition(begin)
    assert found, f"{page_file.name} has no place for {table}"
    stale, found, tail = rest.partition(end)
    assert found
    fresh = rendered(table, columns)
    if os.environ.get("HOLDFAST_WRITE_TABLES") == "1":
        page_file.write_text(head + begin + fresh + end + tail, encoding="utf-8")
        return
    assert stale == fresh, "the table is stale: HOLDFAST_WRITE_TABLES=1 make interop writes it"
