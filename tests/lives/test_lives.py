"""A handful of lives, and what a life is made of. The proof lives a thousand: ``make proof-life``."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from holdfast_sim.faults import Fault
from years.appointments import Town
from years.house import LADDERS, House
from years.life import BEGIN, PROFILES, Life, Profile
from years.many import Share, live
from years.misfortunes import Misfortune

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


@pytest.mark.parametrize("ladder", LADDERS, ids="-".join)
def test_a_year_on_each_ladder(ladder: tuple[str, ...]) -> None:
    life = Life(PROFILES["week"], 5, years=1, house=House(ladder, more=1, told=True))
    place, town = FIRST_ASKED[ladder[0]]
    fault, estate = Fault(place, "drop-before", 3), life.estate
    drops = Misfortune(
        "drops",
        timedelta(days=9),
        lambda: estate.begin_fault(fault, town),
        lambda: estate.end_fault(fault, town),
    )
    life.expect(drops, BEGIN)
    tally = life.run()
    assert tally.violations == []
    assert tally.renewals > 80
    assert tally.faults[str(fault)] >= 3, "the best rung is asked first"


FIRST_ASKED: dict[str, tuple[str, Town]] = {
    "est": ("cacerts", "main"),
    "cmp": ("cmp", "annex"),
    "cmp-ae": ("cmp", "main"),
    "scep": ("getcacert", "annex"),
    "cmc": ("cmc", "annex"),
    "acme": ("acme-directory", "annex"),
}


@pytest.mark.parametrize("ladder", [way for way in LADDERS if len(way) > 1 and way[0] == "est"], ids="-".join)
def test_the_second_rung_renews_while_the_first_is_away(ladder: tuple[str, ...]) -> None:
    life = Life(Profile("calm", timedelta(days=7), trouble=0, hurry=0), 0, years=1, house=House(ladder))
    cut = life.estate.cut_off
    outage = Misfortune(
        "outage", timedelta(days=40), lambda: cut.update(["main"]), lambda: cut.subtract(["main"])
    )
    life.expect(outage, BEGIN + timedelta(days=50))
    tally = life.run()
    assert tally.violations == []
    assert tally.without == timedelta(0)
    assert tally.renewals > 70
    assert life.judge.record is not None
    moves = [(m.source, m.target) for m in life.judge.record.identity("ldevid").ladder.moves]
    first, second = life.gateway.settings.identities[0].rungs[:2]
    assert moves == [(first, second), (second, first)]


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
    assert done.stdout.splitlines()[0].startswith("2027-06-01 12:00:0")
    assert "0 violations" in done.stdout
