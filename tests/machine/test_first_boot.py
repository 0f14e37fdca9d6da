"""A gateway is switched on for the first time."""

from __future__ import annotations

import pytest

from machine.owner import Town

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]


def test_it_enrolls_by_itself(town: Town) -> None:
    with town.power_on(town.unpack(clock="trusted")) as gateway:
        gateway.enrolled()
        assert gateway.ask("stat -c %U:%G:%a /dev/tpmrm0") == "tss:tss:660"
        gateway.shut_down()
