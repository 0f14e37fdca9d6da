"""Files that say which identities are active: there while they are, and written only when that changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.host.activation import runtime_directory, show_active
from holdfast.wire.errors import StateError


def shown(runtime: Path) -> dict[str, float]:
    return {p.parent.name: p.stat().st_mtime_ns for p in runtime.glob("identities/*/active")}


def test_what_is_active_is_shown_and_nothing_else(tmp_path: Path) -> None:
    show_active(tmp_path, ["ldevid", "mqtt"])
    before = shown(tmp_path)
    assert set(before) == {"ldevid", "mqtt"}
    show_active(tmp_path, ["mqtt", "ldevid"])
    assert shown(tmp_path) == before, "nothing was written"
    show_active(tmp_path, ["mqtt"])
    assert shown(tmp_path) == {"mqtt": before["mqtt"]}
    show_active(tmp_path, [])
    assert shown(tmp_path) == {}
    assert (tmp_path / "identities").stat().st_mode & 0o777 == 0o755


def test_the_directory_is_the_service_manager_s(tmp_path: Path) -> None:
    assert runtime_directory({}) is None
    assert runtime_directory({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a")
    (tmp_path / "identities").write_text("")
    with pytest.raises(StateError, match=r"activation\."):
        show_active(tmp_path, ["ldevid"])
