"""Which rung of the ladder, and why: as ``why``, ``status`` and ``plan`` tell it from the record."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

import wire_pki as pki
from cli.healthy import NOW
from holdfast.cli.main import main
from holdfast.host.config import load
from holdfast.host.store import StateStore
from holdfast.life import ladder
from holdfast.life.record import Bar, DeviceRecord, Domain, DomainState, Identity, Ladder

NAME = "ldevid"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(pki.ca("Maker").certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\nclock: trusted\n"
        "registrars: ['r.example:443']\nmanufacturer: {anchors: anchors.pem}\n"
        "identities:\n  - name: ldevid\n    protocols: [{est: {}}, {est: {url: 'https://b.example/.well-known/est'}}]\n"
    )
    return path


def remember(config: Path, place: Ladder) -> None:
    record = DeviceRecord(NOW - timedelta(days=1), Domain(DomainState.VOUCHED, "r.example:443"))
    StateStore(load(config).state_directory).commit(record.with_identity(Identity(NAME, ladder=place)))


def why(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    main(["--config", str(config), "why", "--json"])
    return str(json.loads(capsys.readouterr().out)["reasons"][0]["ladder"])


def test_down_and_up_again_with_the_reason(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(config, Ladder())
    assert why(config, capsys) == "New requests try est, then est-2; none has answered yet."
    passed = (Bar("est", "transport.unreachable", NOW),)
    down = ladder.arrived(ladder.arrived(Ladder(), "est", (), NOW), "est-2", passed, NOW)
    remember(config, down)
    said = why(config, capsys)
    assert "it uses est-2 since" in said
    assert "because est did not serve (transport.unreachable)" in said
    main(["--config", str(config), "status"])
    assert "from est (transport.unreachable)" in capsys.readouterr().out
    remember(config, ladder.arrived(down, "est", (), NOW))
    assert "because it answers again" in why(config, capsys)


def test_the_plan_names_the_rungs_in_the_order_in_which_they_are_tried(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remember(config, Ladder())
    main(["--config", str(config), "plan"])
    assert "by est, else by est-2" in " ".join(capsys.readouterr().out.split())
    remember(config, ladder.barred(Ladder(), "est", "est.unsupported", NOW))
    main(["--config", str(config), "plan"])
    assert "wishes by est-2, as" in " ".join(capsys.readouterr().out.split())


def test_where_there_never_was_a_choice_nothing_is_said(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().split("identities:")[0])
    remember(config, Ladder(rung="est"))
    assert why(config, capsys) == ""
