"""Power cuts around every commit of a device, and around all that its servers see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from holdfast.host.store import StateStore
from holdfast_sim.site import Server, Site


class PowerCut(BaseException):
    """Not an Exception: nothing in the agent may catch it."""


class Cut:
    """The power cut of one turn. ``point`` counts the turns from 0, ``happened`` is known after the block."""

    def __init__(self, point: int) -> None:
        self.point = point
        self._left = [point]

    @property
    def happened(self) -> bool:
        return self._left[0] < 0

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """What goes on in the block ends where power goes away."""
        with pytest.MonkeyPatch.context() as patch, suppress(PowerCut):
            cut_after(patch, self._left)
            yield


def power_cuts(most: int = 200) -> Iterator[Cut]:
    """One cut a turn, each a point later, until a turn has come to its end with none."""
    for point in range(most):
        cut = Cut(point)
        yield cut
        if not cut.happened:
            return
    raise AssertionError(f"after {most} cuts there was still another point")


def cut_after(patch: pytest.MonkeyPatch, left: list[int]) -> None:
    """Raise at the point with that number: around each commit, and around what the server sees."""

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    commit, answer = StateStore.commit, Site.answer

    def commits(store: StateStore, record: Any) -> None:
        tick()
        commit(store, record)
        tick()

    def answers(site: Site, server: Server, request: Any, peer: Any) -> Any:
        tick()
        result = answer(site, server, request, peer)
        tick()
        return result

    patch.setattr(StateStore, "commit", commits)
    patch.setattr(Site, "answer", answers)
