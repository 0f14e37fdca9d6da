"""Every fault of the simulator is met by appointment, or excused with a reason."""

from __future__ import annotations

from collections import Counter

from holdfast_sim.faults import KINDS
from years import lives_page
from years.appointments import EXCUSED, EXCUSES, FAULTS, SCENES, appointed, excuse_of
from years.house import LADDERS
from years.life import PROFILES, Life

SEEDS = 700
"""Fewer than the proof lives."""


def test_no_fault_is_forgotten() -> None:
    every = {(where, kind) for where, kinds in KINDS.items() for kind in kinds}
    assert set(FAULTS) | set(EXCUSED) == every
    assert not set(FAULTS) & set(EXCUSED)
    assert len(FAULTS) == len(set(FAULTS))


def test_every_excuse_excuses_something_that_there_is() -> None:
    for excuse in EXCUSES:
        assert excuse.why
        for where in excuse.places:
            assert where in KINDS
        assert all(any(kind in KINDS[where] for where in excuse.places) for kind in excuse.kinds)
        assert any(excuse_of(w, k) == excuse.why for w in excuse.places for k in excuse.kinds or KINDS[w])


def test_each_fault_has_its_appointment() -> None:
    due = Counter(m for seed in range(SEEDS) if (given := appointed(seed)) for m in given[1])
    assert set(due) == set(FAULTS)
    assert sum(appointed(seed) is None for seed in range(SEEDS)) == SEEDS / 2


def test_each_scene_has_a_ladder() -> None:
    assert {scene.top for scene in SCENES} <= {ladder[0] for ladder in LADDERS}


def test_a_life_keeps_its_appointments() -> None:
    seed = next(s for s in range(SEEDS) if (given := appointed(s)) and given[0].name == "CMC")
    given = appointed(seed)
    assert given is not None
    tally = Life(PROFILES["year"], seed).run()
    assert tally.violations == []
    assert [m for m in given[1] if not tally.faults[":".join(m)]] == []


def test_the_page_is_fresh() -> None:
    assert lives_page.PAGE.read_text() == lives_page.text(), "make docs"


def test_a_fault_that_no_life_met_is_told() -> None:
    tally = Life(PROFILES["week"], 0, years=1).run()
    assert set(tally.unmet) <= set(KINDS)
    assert ("acme-order", "stuck") in {(w, k) for w, kinds in tally.unmet.items() for k in kinds}
