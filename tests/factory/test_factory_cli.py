"""``holdfast-factory`` as a person or a script runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast_factory.cli import main

pytestmark = pytest.mark.tpm


def _make(home: Path, *more: str, serial: str = "GW-0001") -> list[str]:
    tpm, out = str(home / "tpm"), str(home / "out")
    return [
        "make-device",
        "--factory",
        str(home / "f"),
        "--tpm-state",
        tpm,
        "--serial",
        serial,
        "--out",
        out,
        *more,
    ]


def test_init_then_make_then_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "f"), "--masa-url", "masa.example:9443"]) == 0
    assert main(_make(tmp_path, "--json")) == 0
    captured = capsys.readouterr()
    device = json.loads(captured.out.splitlines()[-1])
    assert device["serial"] == "GW-0001"
    assert device["new"] is True
    assert len(device["ek_certificate_sha256"]) == 64
    assert device == json.loads((tmp_path / "out" / "device.json").read_text())
    assert captured.err == ""
    assert main(_make(tmp_path)) == 0
    assert "was made before" in capsys.readouterr().out


def test_json_is_all_that_stands_on_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path / "f"), "--masa-url", "masa.example:9443"])
    capfd.readouterr()
    main(_make(tmp_path, "--json"))
    captured = capfd.readouterr()
    assert json.loads(captured.out)["idevid_nv"] == "0x01c90200"
    assert captured.err == ""


def test_refusals_are_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_make(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("holdfast-factory: factory.missing: ")
    main(["init", str(tmp_path / "f"), "--masa-url", "masa.example:9443"])
    assert main(["init", str(tmp_path / "f"), "--masa-url", "other.example"]) == 1
    main(_make(tmp_path))
    capsys.readouterr()
    assert main(_make(tmp_path, serial="GW-0002")) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("holdfast-factory: factory.other-serial: ")
    assert captured.err.count("\n") == 1
