"""A TPM whose device file comes after the agent: its driver is a module, and slow to be loaded."""

from __future__ import annotations

import pytest

from machine.autopsy import assert_whole, examine
from machine.gateway import Hardware
from machine.owner import Town

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

HIDE = "systemctl stop holdfast.service && mv /dev/tpmrm0 /dev/later && systemctl start holdfast.service"


def test_the_agent_may_open_a_device_that_was_not_there_when_it_started(
    town: Town, enrolled: Hardware
) -> None:
    hardware = town.twin(enrolled)
    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.ask(HIDE)
        gateway.run("holdfast renew ldevid")
        gateway.trouble()

        gateway.ask("mv /dev/later /dev/tpmrm0")
        start = len(gateway.entries)
        gateway.run("holdfast renew ldevid")
        gateway.enrolled(generation=2, start=start)
        assert gateway.ask("systemctl show --property NRestarts --value holdfast.service") == "0"
        allowed = gateway.ask("systemctl show --property DeviceAllow --value holdfast.service")
        assert "char-tpm rw" in allowed.splitlines()
        assert "tpmrm0" not in allowed
        gateway.shut_down()
    assert_whole(examine(hardware), town.shipped)
