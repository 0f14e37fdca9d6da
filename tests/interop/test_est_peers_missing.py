"""A peer that is not there: a failure in CI, a skip elsewhere. Needs no peer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interop.est_peers import debian_root, globalsign


def libest() -> None:
    with debian_root():
        pass


@pytest.mark.parametrize("peer", [libest, lambda: globalsign("estclient")], ids=["libest", "globalsign"])
@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_peer_names_what_to_install(
    peer: Callable[[], object],
    ci: str,
    outcome: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="make peers"):
        peer()
