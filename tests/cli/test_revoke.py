"""``holdfast revoke``: what it asks before, and what it refuses to do unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import wire_pki as pki
from holdfast.cli.main import EXIT_OPERATOR, main
from holdfast.cli.revoke import REASONS


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(pki.ca("Maker").certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['127.0.0.1:1']\nmanufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
        "identities: [{name: ldevid}, {name: mqtt}]\n"
    )
    return path


def revoke(config: Path, *more: str) -> int:
    return main(["--config", str(config), "revoke", *more])


def test_several_identities_must_be_told_apart(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert revoke(config, "--yes") == EXIT_OPERATOR
    assert "ldevid, mqtt" in capsys.readouterr().err
    assert revoke(config, "--yes", "wifi") == EXIT_OPERATOR
    assert "no identity wifi" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_nobody_is_there_to_be_asked(
    config: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert revoke(config, "ldevid", *more) == EXIT_OPERATOR
    said = capsys.readouterr()
    if more:
        assert json.loads(said.out)["error"]["code"] == "revoke.unconfirmed"
    else:
        assert "--yes" in said.err


def test_a_reason_that_cannot_be_given(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        revoke(config, "ldevid", "--yes", "--reason", "ca-compromise")
    assert ended.value.code == EXIT_OPERATOR
    assert "key-compromise" in capsys.readouterr().err
    assert "certificate-hold" not in REASONS
