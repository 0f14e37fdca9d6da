"""What a user may do to the command line: garbled arguments, closed pipes, small and old terminals."""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli import exits, status
from holdfast.cli.commands import tree
from holdfast.cli.main import EXIT_INTERRUPTED, main, parser
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import (
    Anchor,
    Credential,
    CredentialState,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Provenance,
)

CA = pki.ca("Gerätewerk Köln")
LEAF = pki.end_entity("gateway", CA)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(CA.certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['r.example:443']\nmanufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
    )
    anchor = Anchor(pki.der(CA.certificate), Provenance.CACERTS, pki.NOW)
    credential = Credential(
        CredentialState.ACTIVE, KeyRef("tpm2:blob:ldevid-1"), (pki.der(LEAF.certificate),), 1
    )
    record = DeviceRecord(pki.NOW, Domain(DomainState.VOUCHED, "r.example:443", anchors=(anchor,)))
    StateStore(tmp_path / "state").commit(record.with_identity(Identity("ldevid", credential)))
    return path


def command(config: Path, *words: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "holdfast.cli.main", "--config", str(config), *words]


def run(
    config: Path, *words: str | bytes, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **environment}
    return subprocess.run(command(config, *words), capture_output=True, check=False, env=env)


def on_a_terminal(config: Path, *words: str, environment: Mapping[str, str] = {}) -> str:
    """What the command shows on a terminal of its own."""
    mine, its = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    env = {k: v for k, v in env.items() if v}
    with subprocess.Popen(command(config, *words), stdin=its, stdout=its, stderr=its, env=env):
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # EIO: the last one closed its end
                break
            if not piece:
                break
            shown += piece
    os.close(mine)
    return shown.decode()


# --- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("stauts",),
        ("status", "--jsno"),
        ("status", "extra"),
        ("config",),
        ("config", "chekc"),
        ("completion", "tcsh"),
        ("log", "--lines", "many"),
        ("--config",),
        (b"\xff\xfe",),
        ("why", "\x1b[2J"),
        ("show", "no-such-identity"),
        ("show", "./no-such-file.pem"),
        ("doctor", "\u202egnp"),
    ],
    ids=repr,
)
def test_garbled_arguments_are_status_two_and_one_clear_word(
    config: Path, words: tuple[str | bytes, ...]
) -> None:
    done = run(config, *words)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr
    assert done.stderr.strip()


def test_an_abbreviated_option_or_command_is_not_guessed(config: Path) -> None:
    assert run(config, "stat").returncode == 2


def test_help_of_every_command_names_its_options_and_the_exit_statuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in tree(parser()).walk():
        with pytest.raises(SystemExit) as ended:
            main([*command.path, "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert all(name in out for option in command.options for name in option.names)
        if not command.path:
            assert all(f"{code:>3}  {meaning}" in out for code, meaning in exits.MEANING.items())


def test_every_command_that_tells_something_tells_it_as_json() -> None:
    without = {
        " ".join(c.path)
        for c in tree(parser()).walk()
        if c.path and not c.children and not any("--json" in o.names for o in c.options)
    }
    assert without == {"run", "config schema", "completion"}


def test_the_table_of_exit_statuses_is_complete() -> None:
    constants = {value for name, value in vars(exits).items() if name.startswith("EXIT_")}
    assert constants == set(exits.MEANING)
    assert all(0 <= code < 256 for code in constants)


# --- pipes and interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("status",), ("why", "--json"), ("doctor",), ("config", "schema"), ("--help",)]
)
def test_a_closed_pipe_is_no_traceback(config: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command(config, *words), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    assert done.returncode in {0, 1}


def test_an_interruption_is_status_130(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def interrupted(_arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "run", interrupted)
    assert main(["--config", str(config), "status"]) == EXIT_INTERRUPTED


def test_an_error_as_json_is_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    config.write_text("registrars: []\n")
    for words in (("status",), ("why",), ("plan",), ("show",), ("identities",), ("config", "check")):
        assert main(["--config", str(config), *words, "--json"]) == 2
        told = json.loads(capsys.readouterr().out)
        assert (told["ok"], told["error"]["code"]) == (False, "config.invalid")


# --- terminals ----------------------------------------------------------------------------------------------


OLD = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("words", [("status",), ("show",), ("why",)])
def test_a_terminal_without_unicode_shows_what_it_can(config: Path, words: tuple[str, ...]) -> None:
    done = run(config, *words, environment=OLD)
    assert done.stderr == b""
    assert done.stdout.isascii()
    if words[0] != "why":
        assert b"Ger\\xe4tewerk K\\xf6ln" in done.stdout
        assert "Gerätewerk Köln" in run(config, *words, environment={"PYTHONUTF8": "1"}).stdout.decode()


@pytest.mark.parametrize("columns", ["0", "1", "20", "55", "1000", "wide"])
def test_paragraphs_fit_the_terminal(config: Path, columns: str) -> None:
    lines = run(config, "why", environment={"COLUMNS": columns}).stdout.decode().splitlines()
    limit = {"1": 40, "20": 40, "55": 55}.get(columns, 100)
    longest = max(len(line) for line in lines if " " in line.strip())
    assert longest <= limit
    assert len(" ".join(lines)) > 100


def test_colour_is_for_terminals_that_want_it(config: Path) -> None:
    escape = re.compile(r"\x1b\[\d+m")
    assert escape.search(on_a_terminal(config, "doctor", "config", environment={"NO_COLOR": ""}))
    assert not escape.search(on_a_terminal(config, "doctor", "config", environment={"NO_COLOR": "1"}))
    assert not escape.search(on_a_terminal(config, "doctor", "config", environment={"TERM": "dumb"}))
    assert not escape.search(run(config, "doctor", "config").stdout.decode())


def test_names_of_strangers_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rogue = pki.ca("evil\x1b]0;owned\x07\x9b2J")
    path = tmp_path / "rogue.pem"
    path.write_bytes(rogue.certificate.public_bytes(Encoding.PEM))
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "evil" in out
    assert all(line.isprintable() for line in out.splitlines())
