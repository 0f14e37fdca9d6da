"""What a worker tells the resident process: read back by the very code that reads it there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.report import step_report
from holdfast.host.config import load
from holdfast.life.record import DeviceRecord, Identity, Schedule, Trouble
from holdfast.resident.reports import Progress, Report, Settings, read_line
from holdfast.wire.model import KeyAlgorithm
from holdfast.worker.allowance import RSA_SECONDS
from holdfast.worker.ports import Doing
from holdfast.worker.step import Step
from holdfast.worker.telling import numbers_told, progress_told, settings_told, usable
from lifecycle.device import T0, Device

NETWORK = Trouble("transport.connect", "no route to host", "", "backoff", T0)


def read(told: Any) -> Any:
    return read_line(json.dumps(told).encode())


def test_settings_arrive(tmp_path: Path) -> None:
    device = Device(tmp_path)
    config = tmp_path / "holdfast.yaml"
    more = "agent:\n  group: adm\n  worker-seconds: 600\n  metrics: {file: /run/x.prom, port: 9464}\n"
    config.write_text(config.read_text() + more)
    told = read(settings_told(load(config), [("ldevid", "/var/lib/x/current")]))
    assert isinstance(told, Settings)
    assert told.identities == (("ldevid", "/var/lib/x/current/chain.pem"),)
    assert (told.group, told.worker_seconds) == ("adm", 600)
    assert (told.metrics_file, told.metrics_listen) == ("/run/x.prom", ("127.0.0.1", 9464))
    plain = read(settings_told(device.settings, []))
    assert (plain.metrics_file, plain.metrics_listen, plain.group) == ("", None, "")


def test_a_first_boot_tells_each_effect_before_and_after_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    announced: list[Doing] = []
    env = replace(device.environment, announce=announced.append)
    done = Step(env).run()
    assert [d.name for d in announced] == [t.name for t in done.traces]
    assert all(isinstance(read(progress_told(d)), Progress) for d in announced)
    assert all(d.allow >= device.settings.limits.total_seconds for d in announced)
    told = read({**step_report(done), "agent": numbers_told(env, done.record)})
    assert isinstance(told, Report)
    (identity,) = told.identities
    assert (identity.name, identity.state, identity.generation) == ("ldevid", "active", 1)
    assert identity.not_after > T0.timestamp()
    assert told.clock == "trusted"
    assert told.trouble is None
    protocols = {e.name: e.protocol for e in told.effects}
    assert (protocols["RequestVoucher"], protocols["Enroll"]) == ("brski", "est")
    transactions = {e.transaction for e in told.effects if e.name in {"MakeRequest", "Enroll"}}
    assert len(transactions) == 1
    assert transactions != {""}
    assert usable(env, done.record) == {"ldevid"}


def test_an_identity_without_files_is_not_usable(tmp_path: Path) -> None:
    device = Device(tmp_path)
    record = device.live_until_active().record
    files = device.files("ldevid")
    files.rollback(1)
    assert usable(device.environment, record) == frozenset()


def test_rsa_keys_have_an_allowance_of_their_own(tmp_path: Path) -> None:
    allowed = {}
    for algorithm in (KeyAlgorithm.P256, KeyAlgorithm.RSA2048):
        device = Device(
            tmp_path / algorithm.value,
            identities=f"  - name: ldevid\n    key: {{algorithm: {algorithm.value}}}\n",
        )
        announced: list[Doing] = []
        Step(replace(device.environment, announce=announced.append)).run()
        allowed[algorithm] = {d.name: d.allow for d in announced}
    rsa, p256 = allowed[KeyAlgorithm.RSA2048], allowed[KeyAlgorithm.P256]
    assert rsa["MakeRequest"] == p256["MakeRequest"] + RSA_SECONDS
    assert rsa["Enroll"] == p256["Enroll"]


@pytest.mark.parametrize(
    ("code", "hasten", "tries"),
    [
        ("transport.connect", True, True),
        ("transport.connect", False, False),
        ("est.rejected", True, False),
    ],
)
def test_a_network_that_came_up_ends_the_waits_for_it_and_no_other(
    tmp_path: Path, code: str, hasten: bool, tries: bool
) -> None:
    device = Device(tmp_path)
    device.step()
    waits = Schedule(device.clock.now + timedelta(hours=1), 3, replace(NETWORK, code=code))
    for record in (
        DeviceRecord(device.record.floor, schedule=waits),
        device.record.with_identity(Identity("ldevid", schedule=waits)),
    ):
        device.environment.store.commit(record)
        done = Step(device.environment, hasten=hasten).run()
        assert bool(done.traces) == tries


def test_a_network_that_does_not_help_is_waited_for_again(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    device.servers.clear()
    waits = Schedule(device.clock.now + timedelta(hours=1), 3, NETWORK)
    device.environment.store.commit(device.record.with_identity(Identity("ldevid", schedule=waits)))
    done = Step(device.environment, hasten=True).run()
    assert len(done.traces) == 1, "once, and not in a circle"
    assert done.record.identity("ldevid").schedule.attempts == 4
