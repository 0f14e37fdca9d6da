"""When a device renews, seen over several certificates."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast_sim import ca
from holdfast_sim.world import EstPolicy
from lifecycle.device import Device


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
