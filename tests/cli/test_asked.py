"""Who may not read the record hears of it from the running agent, and nobody else does."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.test_renew import agent
from holdfast.cli.asked import lines
from holdfast.cli.main import main

STATUS = {
    "version": "0.1",
    "state": "domain vouched, ldevid active",
    "due_at": 1798761600,
    "working": {"doing": "Enroll", "identity": "ldevid", "allow_seconds": 600.0},
    "identities": [
        {
            "name": "ldevid",
            "state": "active",
            "generation": 3,
            "not_after": 1830297600,
            "transaction": "requested",
            "attempts": 2,
        }
    ],
    "trouble": {"code": "transport.dns", "detail": "no such \x1b[2Jname", "clause": "", "retry": "backoff"},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "holdfast.yaml"
    path.write_text("registrars: ['r.example:443']\nmanufacturer: {anchors: none.pem}\n")
    return path


@pytest.mark.parametrize("command", ["status", "why"])
def test_a_member_of_the_group_is_told_reason_next_attempt_and_advice(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    socket = tmp_path / "control"
    with agent(socket, [{"parameters": {"status": STATUS}}]) as calls:
        assert main(["--config", str(config), command, "--socket", str(socket)]) == 0
    assert [c["method"] for c in calls] == ["io.holdfast.Agent.GetStatus"]
    out = capsys.readouterr().out
    for said in ("ldevid active", "2027-01-01T00:00:00Z", "sending the request ldevid", "transport.dns"):
        assert said in out
    assert "name servers" in out
    assert "\x1b" not in out
    socket.unlink()
    with agent(socket, [{"parameters": {"status": {**STATUS, "identities": []}}}]):
        assert main(["--config", str(config), command, "--socket", str(socket), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"]["due_at"] == 1798761600


def test_root_and_who_finds_no_agent_see_what_is_really_wrong(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for user in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert main(["--config", str(config), "status", "--socket", str(tmp_path / "none")]) == 2
        assert "none.pem" in capsys.readouterr().err


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(STATUS)), inner, max_size=3)
    ),
)


@given(
    st.dictionaries(st.sampled_from(sorted(STATUS)), values)
    | st.builds(
        lambda entry: {**STATUS, "identities": [entry]},
        st.dictionaries(st.sampled_from(sorted(STATUS["identities"][0])), values),  # type: ignore[index]
    )
)
def test_whatever_an_agent_says_is_printed_on_lines(status: dict[str, Any]) -> None:
    assert all(line.isprintable() for line in lines(status, datetime(2027, 1, 1, tzinfo=UTC)))
