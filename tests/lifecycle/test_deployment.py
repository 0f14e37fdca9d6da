"""Deployment is a persisted, retried step: promoted, files current, hooks run (FIELD-LESSONS 8, 18, 19)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import main
from holdfast.host.config import DeploySettings, HookSettings
from holdfast.host.credentials import CredentialFiles
from holdfast.host.deploy import HookError
from holdfast.host.store import StateStore
from holdfast.life.record import CredentialState, Deployment, DeviceRecord, Schedule, TransactionState
from holdfast.wire.errors import StateError
from lifecycle.device import Device

TWO = "  - name: ldevid\n    protocols: [{est: {}}]\n  - name: second\n    protocols: [{est: {}}]\n"
FIRST, SECOND, THIRD = (HookSettings((f"/bin/hook-{n}",)) for n in (1, 2, 3))


class Hooks:
    """Stands for the host's programs: notes what ran, and fails on request."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, str]] = []
        self.failing: set[str] = set()

    def __call__(self, hook: HookSettings, variables: Mapping[str, str]) -> None:
        self.ran.append((hook.argv[0], variables["HOLDFAST_IDENTITY"], variables["HOLDFAST_GENERATION"]))
        assert (Path(variables["HOLDFAST_DIRECTORY"]) / "chain.pem").exists()
        if hook.argv[0] in self.failing:
            raise HookError("deploy.hook-failed", f"{hook.argv[0]} ended with status 1")

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.ran]


def hooked(directory: Path, *hooks: HookSettings, identities: str = "") -> tuple[Device, Hooks]:
    device = Device(directory, **({"identities": identities} if identities else {}))  # type: ignore[arg-type]
    told = Hooks()
    device.run_hook = told
    configure(device, DeploySettings(hooks=hooks))
    return device, told


def configure(device: Device, deploy: DeploySettings, name: str = "ldevid") -> None:
    identities = tuple(replace(i, deploy=deploy) if i.name == name else i for i in device.settings.identities)
    device.settings = replace(device.settings, identities=identities)


def test_hooks_run_once_in_their_order_after_the_files_are_current(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST, SECOND)
    device.step()
    assert hooks.ran == [("/bin/hook-1", "ldevid", "1"), ("/bin/hook-2", "ldevid", "1")]
    assert device.identity.deployment.stage == "hooks run"
    device.step()
    device.pass_time(timedelta(days=1))
    device.step()
    assert len(hooks.ran) == 2
    device.step(renew=["ldevid"])
    assert hooks.ran[2:] == [("/bin/hook-1", "ldevid", "2"), ("/bin/hook-2", "ldevid", "2")]


def test_a_hook_that_failed_runs_again_and_the_others_do_not(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST, SECOND, THIRD)
    hooks.failing = {"/bin/hook-2"}
    report = device.step()
    assert hooks.names == ["/bin/hook-1", "/bin/hook-2", "/bin/hook-3"]
    deployment = device.identity.deployment
    assert deployment.stage == "files current"
    assert deployment.schedule.trouble is not None
    assert deployment.schedule.trouble.code == "deploy.hook-failed"
    assert report.due == deployment.schedule.due
    assert device.identity.schedule == Schedule()
    device.step()
    assert len(hooks.ran) == 3, "it waits"
    waits = []
    for _ in range(12):
        waits.append(report.due - device.clock.now)
        device.clock.now = report.due
        report = device.step()
    assert hooks.names[3:] == ["/bin/hook-2"] * 12
    assert waits[0] < timedelta(minutes=1) < waits[-1] <= timedelta(hours=6), "backoff, and never given up"
    hooks.failing.clear()
    device.clock.now = report.due
    report = device.step()
    assert device.identity.deployment.stage == "hooks run"
    assert device.identity.deployment.schedule == Schedule()
    assert report.due > device.clock.now + timedelta(days=30)


def test_a_failing_hook_holds_up_neither_the_renewal_nor_another_identity(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST, identities=TWO)
    hooks.failing = {"/bin/hook-1"}
    device.step()
    assert device.record.identity("second").deployment.stage == "hooks run"
    for _ in range(30):  # until it is slept over the renewal
        device.clock.now = device.identity.deployment.schedule.due or device.clock.now
        device.step()
    assert device.identity.credential.generation == 1
    device.pass_time(timedelta(days=64))
    device.step()
    assert device.identity.credential.generation == 2
    assert device.record.identity("second").credential.generation == 2
    assert device.files("ldevid").current() == 2


def test_the_old_key_lives_until_the_hooks_ran(tmp_path: Path) -> None:
    """FIELD-LESSONS 8: rotation must not strand those who still use the old credential."""
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    old = device.identity.credential.key
    hooks.failing = {"/bin/hook-1"}
    device.step(renew=["ldevid"])
    assert device.identity.retiring == (old,)
    for _ in range(3):
        device.clock.now = device.identity.deployment.schedule.due or device.clock.now
        device.step()
        assert old in device.keys.refs()
    hooks.failing.clear()
    device.clock.now = device.identity.deployment.schedule.due or device.clock.now
    device.step()
    assert device.keys.refs() == {device.identity.credential.key}


def test_new_anchors_without_a_new_certificate_are_deployed_and_told(tmp_path: Path) -> None:
    """FIELD-LESSONS 18: a CA rollover must reach those who use the bundle."""
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    before = (device.files("ldevid").current_directory / "anchors.pem").read_bytes()
    device.world.roll_over()
    device.reface(["simplereenroll:status:0:code=500"])  # its anchors come, its certificate does not
    device.step(renew=["ldevid"])
    assert device.identity.transaction.state is not TransactionState.NONE
    assert device.identity.credential.generation == 1
    after = (device.files("ldevid").current_directory / "anchors.pem").read_bytes()
    assert after.count(b"BEGIN") == before.count(b"BEGIN") + 1
    assert hooks.ran == [("/bin/hook-1", "ldevid", "1")] * 2
    previous = device.files("ldevid").current_directory.with_name("previous")
    assert (previous / "anchors.pem").read_bytes() == before, "the old generation is kept"


@pytest.mark.parametrize(
    "changed",
    [
        DeploySettings(hooks=(SECOND,)),
        DeploySettings(hooks=(FIRST,), mode=0o440),
        DeploySettings(hooks=(FIRST,), key_mode=0o400),
        DeploySettings(hooks=(FIRST, SECOND)),
    ],
)
def test_a_changed_configuration_deploys_again(tmp_path: Path, changed: DeploySettings) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    configure(device, changed)
    device.step()
    assert hooks.names[1:] == [hook.argv[0] for hook in changed.hooks]
    chain = device.files("ldevid").current_directory / "chain.pem"
    assert chain.stat().st_mode & 0o777 == changed.mode
    device.step()
    assert len(hooks.ran) == 1 + len(changed.hooks)


def test_another_directory_gets_the_files(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    configure(device, DeploySettings(directory=tmp_path / "elsewhere", hooks=(FIRST,)))
    device.step()
    assert (tmp_path / "elsewhere" / "ldevid" / "current" / "chain.pem").exists()
    assert len(hooks.ran) == 2


def test_files_that_somebody_removed_come_back_and_are_told(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    shutil.rmtree(device.settings.state_directory / "identities")
    device.step()
    assert device.files("ldevid").current() == 1
    assert len(hooks.ran) == 2


def test_an_owner_that_the_host_does_not_know_is_said_and_a_mended_one_works_at_once(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    configure(device, DeploySettings(owner="nobody-here", hooks=(FIRST,)))
    report = device.step()
    trouble = device.identity.deployment.schedule.trouble
    assert trouble is not None
    assert trouble.code == "config.owner"
    assert report.due >= device.clock.now + timedelta(hours=6), "a person must act"
    assert device.files("ldevid").current() == 1
    configure(device, DeploySettings(owner=str(os.geteuid()), hooks=(FIRST,)))
    device.step()
    assert device.identity.deployment.stage == "hooks run"
    assert len(hooks.ran) == 2
    assert device.identity.deployment.schedule == Schedule()


def test_a_record_from_before_deployments_is_deployed_once(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()
    store = StateStore(device.settings.state_directory)
    store.commit(device.record.with_identity(replace(device.identity, deployment=Deployment())))
    device.step()
    assert len(hooks.ran) == 2
    assert device.files("ldevid").current() == 1


def test_status_says_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    hooks.failing = {"/bin/hook-1"}
    device.step()
    arguments = ["--config", str(tmp_path / "holdfast.yaml"), "status"]
    assert main(arguments) == 0, "the credential itself is usable"
    said = capsys.readouterr().out
    assert "deployed  not yet: files current" in said
    assert "deploy.hook-failed" in said
    assert main([*arguments, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["identities"]
    assert entry["deployment"]["stage"] == "files current"
    assert entry["deployment"]["failed_attempts"] == 1
    hooks.failing.clear()
    device.clock.now = device.identity.deployment.schedule.due or device.clock.now
    device.step()
    main(arguments)
    assert "deployed" not in capsys.readouterr().out


# --- power cuts --------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The process is gone."""


def cut_at(point: int, monkeypatch: pytest.MonkeyPatch, hooks: Hooks) -> Callable[[], int]:
    """Die at the *point*-th event: before or after a commit, a change of the files, or a hook."""
    count = [0]

    def event() -> None:
        count[0] += 1
        if count[0] == point:
            raise PowerCut

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            event()
            result = original(*args, **kwargs)
            event()
            return result

        monkeypatch.setattr(owner, name, wrapped)

    around(StateStore, "commit")
    around(CredentialFiles, "stage")
    around(CredentialFiles, "promote")
    around(Hooks, "__call__")
    return lambda: count[0]


def test_a_cut_at_any_point_of_a_deployment_ends_well(tmp_path: Path) -> None:
    """Each commit, each change of the files and each hook, before and after it."""
    points, point = 0, 1
    while not points or point <= points:
        directory = tmp_path / str(point)
        directory.mkdir()
        device, hooks = hooked(directory, FIRST, SECOND)
        device.step()
        before = list(hooks.ran)
        with pytest.MonkeyPatch.context() as patched:
            if not points:
                counted = cut_at(0, patched, hooks)
                device.step(renew=["ldevid"])
                points = counted()
                assert points >= 20
                continue_life(device)
                shutil.rmtree(directory)
                continue
            cut_at(point, patched, hooks)
            with pytest.raises(PowerCut):
                device.step(renew=["ldevid"])
        continue_life(device)
        generation = str(device.identity.credential.generation)
        told = [r for r in hooks.ran[len(before) :] if r[2] == generation] or before
        assert {name for name, _, _ in told} == {"/bin/hook-1", "/bin/hook-2"}, point
        assert max(hooks.names.count(n) for n in hooks.names) <= 3, "a cut repeats one hook at most"
        point += 1


def continue_life(device: Device) -> None:
    """A fresh worker after the cut."""
    device.step()
    entry = device.identity
    assert entry.credential.state is CredentialState.ACTIVE
    assert entry.deployment.stage == "hooks run"
    assert device.files("ldevid").current() == entry.credential.generation
    assert device.keys.refs() == {entry.credential.key}


def test_a_full_disk_leaves_the_old_files_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    device.step()

    def full(*_: object, **__: object) -> None:
        raise StateError("credentials.full", "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(CredentialFiles, "promote", full)
        device.step(renew=["ldevid"])
        assert device.identity.deployment.stage == "promoted"
        assert device.files("ldevid").current() == 1
        assert len(hooks.ran) == 1, "nobody is told of files that are not there"
    device.clock.now = device.identity.deployment.schedule.due or device.clock.now
    device.step()
    assert device.files("ldevid").current() == 2
    assert device.identity.deployment.stage == "hooks run"


def test_the_record_survives_its_encoding(tmp_path: Path) -> None:
    device, hooks = hooked(tmp_path, FIRST)
    hooks.failing = {"/bin/hook-1"}
    device.step()
    loaded: DeviceRecord = device.record
    assert loaded.identity("ldevid").deployment.schedule.attempts == 1
