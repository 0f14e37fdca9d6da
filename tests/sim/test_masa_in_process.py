"""Faults of the MASA, as a device behind the registrar meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.life.record import DomainState
from lifecycle.device import Device


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("status:1:code=404", "registrar."),
        ("status:1:code=500", "registrar."),
        ("redirect:1:code=307", "registrar."),
        ("drop-before:1", "registrar."),
        ("drop-after:1", "registrar."),
        ("truncated:1", "registrar."),
        ("slow:1", "registrar."),
        ("oversized:1", "registrar."),
        ("endless:1", "registrar."),
        ("empty:1", ""),
        ("garbage:1", ""),
        ("cut-der:1", ""),
    ],
)
def test_what_the_masa_does_wrong_reaches_the_device_and_passes(
    tmp_path: Path, fault: str, code: str
) -> None:
    device = Device(tmp_path, faults=[f"masa-requestvoucher:{fault}"])
    device.step()
    trouble = device.record.schedule.trouble
    assert trouble is not None
    assert trouble.code.startswith(code), trouble
    assert [str(f) for f in device.site.faults.applied] == [f"masa-requestvoucher:{fault.partition(':')[0]}"]
    device.live_until_active()


def test_a_masa_that_needs_time_is_waited_for(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["masa-requestvoucher:pending:2:retry-after=3600"])
    device.step()
    assert device.record.domain.state is DomainState.PROVISIONAL
    assert device.record.domain.polls == 1
    assert device.record.schedule.due is not None
    device.live_until_active()
