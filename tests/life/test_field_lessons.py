"""Each lesson from the field has a test, and the page that says so names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "field-lessons.md").read_text()
OF_A_LIFE = {1, 2, 3, 4, 5, 6, 7, 8, 12, 17, 18, 19}


def lessons() -> dict[int, list[tuple[str, str]]]:
    """The tests of each line: file and name."""
    lines = [line.split("|") for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    return {int(cells[1]): re.findall(r"`([\w/.]+)::(\w+)`", cells[4]) for cells in lines}


def test_each_line_has_tests_that_exist() -> None:
    missing = [
        f"{number}: {file}::{name}"
        for number, tests in lessons().items()
        for file, name in tests
        if not re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
    assert all(lessons().values())


def test_no_line_of_an_identity_s_life_is_left_out() -> None:
    assert set(lessons()) >= OF_A_LIFE
