"""When a device renews, seen over several certificates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.wire.model import ClockState
from holdfast_sim import ca
from holdfast_sim.world import EstPolicy
from lifecycle.device import T0, Device


def renewals(device: Device, count: int) -> list[timedelta]:
    """The waits before each of *count* renewals."""
    device.live_until_active()
    waits = []
    for _ in range(count):
        due = device.step().due
        waits.append(due - device.clock.now)
        device.clock.now = due
        before = device.identity.credential.generation
        device.step()
        assert device.identity.credential.generation == before + 1
    return waits


def test_after_the_first_turn_the_device_renews_after_its_fraction_of_the_life(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.world.est = EstPolicy(life=timedelta(days=7))
    first, *later = renewals(device, 5)
    assert timedelta(days=0.3) < first < timedelta(days=5.1)
    assert all(timedelta(days=4.55) < wait < timedelta(days=4.7) for wait in later), later


@pytest.mark.parametrize("backdate", [timedelta(hours=12), timedelta(days=6)])
def test_a_ca_that_backdates_far_is_not_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backdate: timedelta
) -> None:
    monkeypatch.setattr(ca, "BACKDATE", backdate)
    device = Device(tmp_path)
    device.world.est = EstPolicy(life=timedelta(days=7))
    _, *later = renewals(device, 5)
    assert all(timedelta(days=4.55) < wait < timedelta(days=4.7) for wait in later), later


@pytest.mark.parametrize("ahead", [timedelta(days=200), timedelta(days=6.999), timedelta(days=365 * 30)])
def test_a_clock_that_runs_ahead_does_not_make_new_certificates_due(tmp_path: Path, ahead: timedelta) -> None:
    """Nobody vouches for it, so it can only measure how long we had the certificate."""
    device = Device(tmp_path)
    device.world.est = EstPolicy(life=timedelta(days=7))
    device.live_until_active()
    true = device.clock.now
    device.world.now = lambda: true
    device.clock.now, device.clock.state = true + ahead, ClockState.FLOOR_ONLY
    _, *later = renewals(device, 4)
    assert all(timedelta(days=4.5) < wait < timedelta(days=4.7) for wait in later), later
    device.clock.now, device.clock.state = true + timedelta(hours=1), ClockState.TRUSTED
    due = device.step().due
    assert timedelta(0) < due - device.clock.now < timedelta(days=7)


def test_a_clock_that_runs_ahead_does_not_make_attempts_dense(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.world.est = EstPolicy(life=timedelta(days=7))
    device.live_until_active()
    true = device.clock.now
    device.world.now = lambda: true
    device.clock.now, device.clock.state = true + timedelta(days=365 * 30), ClockState.FLOOR_ONLY
    device.reface(["cacerts:status"])
    attempts, end = 0, device.clock.now + timedelta(days=3)
    while device.clock.now < end:
        device.clock.now = device.step().due
        attempts += 1
    assert attempts < 40


@pytest.mark.parametrize("endpoint", ["simpleenroll", "requestvoucher"])
def test_a_server_that_wants_to_be_asked_every_second_for_ever_is_not(tmp_path: Path, endpoint: str) -> None:
    device = Device(tmp_path, faults=[f"{endpoint}:pending:0:retry-after=1"])
    end = device.clock.now + timedelta(days=1)
    while device.clock.now < end:
        device.clock.now = max(device.step().due, device.clock.now)
    asked = sum(target.endswith(f"/{endpoint}") for target in device.targets())
    assert 280 < asked < 500
    device.reface([])
    device.live_until_active()


def test_a_wait_that_was_written_under_a_clock_that_ran_ahead_is_not_kept(tmp_path: Path) -> None:
    """By less than the longest wait there is, so that the due time alone does not give it away."""
    device = Device(tmp_path)
    device.servers.clear()
    true = device.clock.now
    device.clock.now, device.clock.state = true + timedelta(days=5), ClockState.FLOOR_ONLY
    assert not device.step().record.identities
    device.clock.now, device.clock.state = true, ClockState.TRUSTED
    device.servers["registrar.example", 8443] = "registrar"
    device.step()
    assert device.active


def test_a_trusted_clock_that_ran_ahead_at_the_enrollment_does_not_count_as_proof(tmp_path: Path) -> None:
    """Life 850: the false time became the domain's floor with the certificate, and the right clock was not
    believed until it had reached it; by then the certificate had ended."""
    device = Device(tmp_path)
    true = device.clock.now
    device.world.now = lambda: device.clock.now - timedelta(days=60)
    device.clock.now = true + timedelta(days=60)
    device.live_until_active()
    assert device.record.proven <= true
    device.clock.now = true + timedelta(hours=1)
    device.world.now = lambda: device.clock.now
    device.live_until_active()
    due = device.step().due
    assert timedelta(0) < due - device.clock.now < timedelta(days=70)
    device.clock.now = due
    device.step()
    assert device.identity.credential.generation == 2


def test_waiting_between_two_failures_is_no_cure(
    tmp_path: Path,
) -> None:
    """Life 918: a CA that says "in a second" and then answers nonsense; each request costs a key."""
    device = Device(tmp_path, faults=["simpleenroll:two-leaves"])
    device.world.est = replace(device.world.est, polls=1, retry_after=1)
    steps = 0
    while device.clock.now < T0 + timedelta(days=1):
        device.clock.now = max(device.clock.now, device.step().due)
        steps += 1
        assert steps < 60
    assert device.keys.made < 30
    device.reface([])
    device.live_until_active()
