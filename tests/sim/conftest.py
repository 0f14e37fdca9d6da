from __future__ import annotations

import pytest

from sim.actors import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench.make()
