"""A handful of lives, and what a life is made of. The proof lives a thousand: ``make proof-life``."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from years.life import PROFILES, Life
from years.many import Share, live

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(4))
def test_ten_years_with_certificates_of_a_year(seed: int) -> None:
    tally = Life(PROFILES["year"], seed).run()
    assert tally.violations == []
    assert tally.renewals >= 10
    assert tally.misfortunes.total() >= 5


@pytest.mark.parametrize("seed", range(2))
def test_a_year_with_certificates_of_a_week(seed: int) -> None:
    tally = Life(PROFILES["week"], seed, years=1).run()
    assert tally.violations == []
    assert tally.renewals > 40


def told(seed: int) -> list[tuple[datetime, str]]:
    """What happened, but for the details of errors: they tell sizes of signatures, which differ."""
    lines: list[tuple[datetime, str]] = []
    tell = lambda at, what: lines.append((at, what.partition(";")[0]))  # noqa: E731
    Life(PROFILES["week"], seed, years=1, tell=tell).run()
    return lines


def test_a_seed_is_the_same_life_again() -> None:
    assert told(3) == told(3) != told(4)


def test_lives_on_all_cores_add_up() -> None:
    alone = live([Share("year", 1, first=n) for n in range(2)])
    assert live([Share("year", 2)]) == alone
    assert alone.lives == 2


def test_a_seed_can_be_replayed_from_the_command_line() -> None:
    command = [sys.executable, "-m", "years", "--profile", "year", "--seed", "1", "--tell"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].startswith("2027-06-01 12:00:00 step: active 1")
    assert "0 violations" in done.stdout
