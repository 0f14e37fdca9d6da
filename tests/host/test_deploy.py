"""Hooks as real processes: what they see, how they end, what stays of them. Owner and modes of files."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import select
import signal
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

import wire_pki as pki
from holdfast.host.config import DeploySettings, HookSettings
from holdfast.host.credentials import Access, CredentialFiles
from holdfast.host.deploy import HookError, access, environment, run_hook
from holdfast.wire.errors import ConfigError, StateError

VARIABLES = environment("ldevid", 3, Path("/srv/id/ldevid/current"))


def shell(script: str, *arguments: object, seconds: float = 60) -> HookSettings:
    return HookSettings(("/bin/sh", "-c", script, "hook", *map(str, arguments)), seconds)


def test_a_hook_sees_the_documented_variables_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/holdfast")
    seen = tmp_path / "seen"
    run_hook(HookSettings(("/usr/bin/env", "-0")), VARIABLES)  # its output goes to the journal
    run_hook(shell('cat /proc/self/environ > "$1"', seen), VARIABLES)
    told = dict(v.split("=", 1) for v in seen.read_text().split("\0") if v)
    assert {k: v for k, v in told.items() if k not in {"PWD", "OLDPWD", "_", "SHLVL"}} == {
        "HOLDFAST_IDENTITY": "ldevid",
        "HOLDFAST_GENERATION": "3",
        "HOLDFAST_DIRECTORY": "/srv/id/ldevid/current",
        "HOLDFAST_CHAIN": "/srv/id/ldevid/current/chain.pem",
        "HOLDFAST_ANCHORS": "/srv/id/ldevid/current/anchors.pem",
        "HOLDFAST_KEY": "/srv/id/ldevid/current/key.pem",
    }


def test_a_hook_runs_in_a_session_of_its_own_without_input_at_the_root(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = 'read line && exit 9; { pwd; cut -d" " -f6 /proc/$$/stat; echo $$; } > "$1"'
    run_hook(shell(script, seen), VARIABLES)
    directory, session, process = seen.read_text().split()
    assert directory == "/"
    assert session == process
    assert int(session) != os.getsid(0)


def test_no_file_of_ours_is_open_in_a_hook(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        run_hook(shell('ls -l /proc/self/fd > "$1"', seen), VARIABLES)
    assert "secret" not in seen.read_text()


def test_arguments_meet_no_shell(tmp_path: Path) -> None:
    tricky = tmp_path / "; touch oops $(id)"
    run_hook(HookSettings(("/bin/mkdir", "--", str(tricky))), VARIABLES)
    assert tricky.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [tricky.name]


@pytest.mark.parametrize(
    ("hook", "code", "says"),
    [
        (shell("exit 3"), "deploy.hook-failed", "status 3"),
        (shell("kill -TERM $$"), "deploy.hook-killed", "signal 15"),
        (HookSettings(("/nonexistent/program",)), "deploy.hook-missing", "/nonexistent/program"),
        (HookSettings(("/etc/passwd",)), "deploy.hook-denied", "/etc/passwd"),
        (HookSettings(("/bin/tr\0ue",)), "deploy.hook-denied", "null byte"),
    ],
)
def test_each_way_to_fail_is_named(hook: HookSettings, code: str, says: str) -> None:
    with pytest.raises(HookError) as caught:
        run_hook(hook, VARIABLES)
    assert caught.value.code == code
    assert says in caught.value.detail


def test_a_hook_whose_time_is_over_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = 'trap "" TERM; /bin/sleep 3600 & echo $$ $! > "$1.new"; mv "$1.new" "$1"; wait'
    with pytest.raises(HookError) as caught:
        run_hook(shell(script, pids, seconds=2), VARIABLES)
    assert caught.value.code == "deploy.hook-timeout"
    for pid in pids.read_text().split():
        assert ends(int(pid))


def ends(pid: int) -> bool:
    """It is gone, or goes in a moment: a killed process that is nobody's child takes its time to die."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """A process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_a_hook_leaves_running_is_let_be(tmp_path: Path) -> None:
    left = tmp_path / "pid"
    run_hook(shell('/bin/sleep 3600 & echo $! > "$1"', left), VARIABLES)
    pid = int(left.read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


# --- owner and modes ---------------------------------------------------------------------------------


def test_names_and_numbers_of_owners_are_asked_of_the_host() -> None:
    root, group = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
    assert access(DeploySettings()) == Access(-1, -1, 0o644, 0o640)
    assert access(DeploySettings(owner=root, group=group, mode=0o440, key_mode=0o400)) == Access(
        0, 0, 0o440, 0o400
    )
    assert access(DeploySettings(owner="1234", group="4321")) == Access(1234, 4321)
    for wrong in (DeploySettings(owner="nobody-here"), DeploySettings(group="nobody-here")):
        with pytest.raises(ConfigError) as caught:
            access(wrong)
        assert caught.value.code == "config.owner"


def found(directory: Path) -> Mapping[str, tuple[int, int, int]]:
    return {
        p.name: (p.stat().st_uid, p.stat().st_gid, stat.S_IMODE(p.stat().st_mode))
        for p in directory.iterdir()
    }


@pytest.fixture
def files(tmp_path: Path) -> CredentialFiles:
    return CredentialFiles(tmp_path, "ldevid")


def stage(files: CredentialFiles, generation: int, owner: Access) -> None:
    chain = (pki.ca("Issuer").certificate,)
    files.stage(generation, chain, chain, b"key", owner)
    files.promote(generation)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_have_the_owner_and_the_modes_that_are_asked_for(files: CredentialFiles) -> None:
    old_umask = os.umask(0o077)
    try:
        stage(files, 1, Access(1234, 4321, 0o444, 0o440))
    finally:
        os.umask(old_umask)
    assert found(files.current_directory) == {
        "chain.pem": (1234, 4321, 0o444),
        "anchors.pem": (1234, 4321, 0o444),
        "key.pem": (1234, 4321, 0o440),
    }


def test_other_modes_for_the_same_content_are_another_deployment_and_the_old_one_is_kept(
    files: CredentialFiles,
) -> None:
    stage(files, 1, Access())
    stage(files, 1, Access(mode=0o440, key_mode=0o400))
    assert {mode for _, _, mode in found(files.current_directory).values()} == {0o440, 0o400}
    before = files.current_directory.with_name("previous")
    assert {mode for _, _, mode in found(before).values()} == {0o644, 0o640}
    assert files.current() == 1


def test_a_file_that_cannot_be_given_away_is_an_error_and_changes_nothing(
    files: CredentialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    stage(files, 1, Access())
    if os.geteuid() == 0:  # root may give files away: the refusal is made
        monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(StateError) as caught:
        stage(files, 2, Access(uid=1))
    assert caught.value.code == "credentials.denied"
    assert files.current() == 1


def test_files_that_are_ours_already_are_not_given_to_us(
    files: CredentialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sandbox of the unit every change of ownership is refused, also one that changes nothing."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    stage(files, 1, Access(uid=os.geteuid(), gid=os.getegid()))
    chain = (pki.ca("Issuer").certificate,)
    files.stage(1, chain, chain, b"the record was lost: numbers start anew", Access())
    files.promote(1)
    assert files.current() == 1
