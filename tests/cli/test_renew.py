"""``renew`` by the agent and by a step, and what a terminal shows meanwhile."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import wire_pki as pki
from cli.test_cli_terminal import on_a_terminal
from holdfast.cli import progress
from holdfast.cli.main import EXIT_FAILED, EXIT_LOCKED, EXIT_OPERATOR, main
from holdfast.host.lock import StateLock
from holdfast.life import events as ev

PROGRESS = {"parameters": {"progress": {"doing": "Enroll", "identity": "ldevid"}}, "continues": True}
ENDED = {"parameters": {"status": {"state": "active"}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(pki.ca("Maker").certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['127.0.0.1:1']\nmanufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
    )
    return path


@contextmanager
def agent(path: Path, replies: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """A resident agent that gives these *replies* to each call; yields the calls that it got."""
    calls: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard = b""
                while piece := connection.recv(4096):
                    heard += piece
                    while b"\0" in heard:
                        call, _, heard = heard.partition(b"\0")
                        calls.append(json.loads(call))
                        connection.sendall(b"".join(json.dumps(r).encode() + b"\0" for r in replies))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield calls
        thread.join(20)
        assert not thread.is_alive()


def renew(config: Path, control: Path, *more: str) -> int:
    return main(["--config", str(config), "renew", "--socket", str(control), *more])


def test_a_running_agent_is_asked(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with agent(tmp_path / "control", [PROGRESS, ENDED]) as calls:
        assert renew(config, tmp_path / "control", "ldevid", "--json") == 0
    assert [c["method"] for c in calls] == ["io.holdfast.Agent.Renew"]
    assert calls[0]["parameters"] == {"identity": "ldevid"}
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["by"]) == (True, "agent")


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("org.varlink.service.PermissionDenied", {}, EXIT_OPERATOR),
        ("io.holdfast.Agent.Failed", {"code": "key.tpm-busy", "detail": "busy"}, EXIT_FAILED),
    ],
)
def test_a_refusal_of_the_agent_is_not_got_round_by_a_step_of_our_own(
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    parameters: dict[str, str],
    status: int,
) -> None:
    with agent(tmp_path / "control", [{"error": name, "parameters": parameters}]):
        assert renew(config, tmp_path / "control") == status
    assert "control." in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_without_an_agent_a_step_is_taken_under_the_lock(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert renew(config, tmp_path / "none", "--json") == EXIT_FAILED
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["by"]) == (False, "step")
    assert told["reasons"][0]["error"]["code"] == "key.tpm-unreachable"
    with StateLock(tmp_path / "state"):
        assert renew(config, tmp_path / "none") == EXIT_LOCKED


def test_an_unknown_identity_is_refused_before_anybody_is_asked(config: Path, tmp_path: Path) -> None:
    assert renew(config, tmp_path / "none", "vpn") == EXIT_OPERATOR
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["step", "renew"])
def test_root_does_not_write_into_another_users_state(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    real = Path.stat

    def owned(path: Path, **more: bool) -> os.stat_result:
        found = real(path, **more)
        return os.stat_result((*found[:4], 65534, *found[5:])) if path == state else found

    monkeypatch.setattr(Path, "stat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    more = ("--socket", str(tmp_path / "none")) if command == "renew" else ()
    assert main(["--config", str(config), command, *more]) == EXIT_OPERATOR
    assert "belongs to user" in capsys.readouterr().err
    assert list(state.iterdir()) == []


# --- progress ------------------------------------------------------------------------------------------


def test_a_terminal_sees_what_is_done_and_a_file_only_what_was_done(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = on_a_terminal(config, "step")
    assert "\r\x1b[Kmeeting the registrar ..." in seen
    assert "meeting the registrar: failed" in seen
    main(["--config", str(config), "step", "--renew", "ldevid"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "..." not in out.splitlines()[0]


@pytest.mark.parametrize(
    ("result", "said"),
    [("CertificateIssued", "done"), ("EnrollmentPending", "must wait"), ("ProofRefused", "failed")],
)
def test_what_came_of_it(result: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    progress.done("Enroll", "ldevid", result, 0.012)
    assert capsys.readouterr().out == f"ldevid: sending the request: {said} (12 ms)\n"


def test_every_effect_has_words() -> None:
    from typing import get_args

    effects = {kind.__name__ for kind in (*get_args(ev.DomainEffect), *get_args(ev.IdentityEffect))}
    assert {name for name in effects if progress.words(name) == name} == set()
