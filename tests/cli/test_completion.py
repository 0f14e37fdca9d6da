"""Completion, asked of the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wire_pki as pki
from holdfast.cli.commands import tree
from holdfast.cli.main import main, parser

COMMANDS = {c.path[0] for c in tree(parser()).children}


def need(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing: apt-get install {tool}")
        pytest.skip(f"{tool} is missing: apt-get install {tool}")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """``holdfast`` on the path, with a configuration of two identities."""
    (tmp_path / "anchors.pem").write_bytes(pki.pem(pki.ca("Maker").certificate))
    (tmp_path / "holdfast.yaml").write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['r.example:443']\nmanufacturer: {anchors: anchors.pem}\n"
        "identities: [{name: ldevid}, {name: mqtt}]\n"
    )
    tool = tmp_path / "bin" / "holdfast"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m holdfast.cli.main "$@"\n')
    tool.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}",
        "HOLDFAST_CONFIG": str(tmp_path / "holdfast.yaml"),
        "HOME": str(tmp_path),
    }


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


CASES = [
    (("",), COMMANDS),
    (("st",), {"status", "step"}),
    (("status", "--j"), {"--json"}),
    (("why", "l"), {"ldevid"}),
    (("plan", ""), {"ldevid", "mqtt", "-h", "--help", "--json"}),
    (("why", "m"), {"mqtt"}),
    (("config", ""), {"check", "schema", "-h", "--help"}),
    (("config", "check", "--j"), {"--json"}),
    (("step", "--renew", ""), {"ldevid", "mqtt"}),
    (("doctor", "tpm-"), {"tpm-lockout", "tpm-srk"}),
    (("completion", ""), {"bash", "fish", "zsh", "-h", "--help"}),
    (("nonsense", ""), COMMANDS),
]


@pytest.mark.parametrize(
    ("words", "expected"), CASES, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_bash(
    words: tuple[str, ...],
    expected: set[str],
    environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    quoted = " ".join(f"'{word}'" for word in ("holdfast", *words))
    asked = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _holdfast; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        [need("bash"), "--norc", "-c", f"{script('bash', capsys)}\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    found = set(done.stdout.split())
    assert found - {"-h", "--help", "-c", "--config"} == expected - {"-h", "--help"}


def test_fish(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = script("fish", capsys)
    asked = "\n".join(
        f"echo =; complete -C 'holdfast {word}'" for word in ("st", "why m", "config c", "status --j")
    )
    done = subprocess.run(
        [need("fish"), "--no-config", "-c", f"{lines}\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    answers = [
        {line.split("\t")[0] for line in part.split("\n") if line} for part in done.stdout.split("=\n")[1:]
    ]
    assert answers == [{"status", "step"}, {"mqtt"}, {"check"}, {"--json"}]


def test_zsh(environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It loads without a word into a shell that warns of everything, and is what completes holdfast."""
    place = tmp_path / "completion.zsh"
    place.write_text(script("zsh", capsys))
    strict = "setopt warn_create_global warn_nested_var err_exit no_unset"
    done = subprocess.run(
        [
            need("zsh"),
            "-f",
            "-c",
            f"autoload -Uz compinit; compinit -D -u; {strict}; source {place}; print -r -- $_comps[holdfast]",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("_holdfast\n", "")
    listed = place.read_text()
    assert all(f"'{name}:" in listed for name in COMMANDS)
