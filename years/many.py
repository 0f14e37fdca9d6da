"""Many lives, on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from .life import PROFILES, Life
from .tally import Tally

BATCH = 5


@dataclass(frozen=True, slots=True)
class Share:
    """*lives* seeds of one profile, from *first* on."""

    profile: str
    lives: int
    first: int = 0


def live(shares: Sequence[Share]) -> Tally:
    """Live all of them; the order of the seeds does not matter to the sum."""
    batches = [
        Share(share.profile, min(BATCH, share.first + share.lives - first), first)
        for share in shares
        for first in range(share.first, share.first + share.lives, BATCH)
    ]
    total = Tally()
    with ProcessPoolExecutor() as pool:
        for tally in pool.map(_batch, batches):
            total.add(tally)
    return total


def _batch(share: Share) -> Tally:
    total = Tally()
    for seed in range(share.first, share.first + share.lives):
        total.add(Life(PROFILES[share.profile], seed).run())
    return total
