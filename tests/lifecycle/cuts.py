"""Power cuts around every commit of a device, and around all that its servers see."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.host.store import StateStore
from holdfast_sim.site import Server, Site


class PowerCut(BaseException):
    """Not an Exception: nothing in the agent may catch it."""


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
