"""What a gateway may meet: a certificate that expired, a TPM that was cleared, a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast_factory.authority import open_factory
from holdfast_factory.device import make_device
from holdfast_factory.swtpm import Swtpm
from lifecycle.tpm_contents import handles
from machine import disk
from machine.autopsy import assert_whole, examine
from machine.broker import CONNACK, greet
from machine.conftest import FULL
from machine.gateway import CLOCK_SET, Hardware
from machine.owner import LIFE, Town, free_port
from machine.programs import run

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

Note = Callable[[str, object], None]
SECOND_SERIAL = "HF-2027-000043"
MOST_CERTIFICATES = 3
"""Issued while the clock goes astray and comes back: a storm would be many."""


@pytest.fixture
def later(town: Town) -> Iterator[None]:
    """Four lives of a certificate have passed, for the servers and for the battery-backed clock."""
    town.clock.ahead = LIFE * 4
    yield
    town.clock.ahead = timedelta()


def test_a_certificate_that_expired_while_it_was_off(town: Town, enrolled: Hardware, later: None) -> None:
    hardware = town.twin(enrolled)
    old = examine(hardware)
    assert old.leaf.not_valid_after_utc < town.clock()
    with town.power_on(hardware) as gateway:
        gateway.enrolled(generation=2)
        gateway.settled()
        gateway.shut_down()
    new = examine(hardware)
    assert_whole(new, town.shipped)
    assert new.leaf.not_valid_after_utc > town.clock()
    assert new.leaf == town.running.world.issued[-1].certificate


def test_a_tpm_that_was_cleared(town: Town, enrolled: Hardware) -> None:
    """It takes the maker's identity, too: the agent says so, waits, and begins anew when there is one."""
    hardware = town.twin(enrolled)
    with Swtpm(hardware.tpm) as tpm:
        run("tpm2_clear", "-T", tpm.tcti, "-c", "p")
        assert not handles(tpm.tcti).persistent
    with town.power_on(hardware) as gateway:
        said = gateway.trouble()
        assert said.get("HOLDFAST_REASON").startswith("key."), said
        assert gateway.ask("systemctl is-active holdfast.service") == "active"
        gateway.shut_down()
    disk.check(hardware.disk)

    with Swtpm(hardware.tpm) as tpm:  # the maker's service
        factory = open_factory(town.home / "works")
        device = make_device(
            factory, tpm.tcti, SECOND_SERIAL, town.home / "second", town.clock().replace(microsecond=0)
        )
        shipped = frozenset(handles(tpm.tcti).persistent)
    disk.write(
        hardware.disk, "/etc/holdfast/idevid-chain.pem", (town.home / "second/idevid-chain.pem").read_text()
    )
    assert device.new
    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.shut_down()
    remains = examine(hardware)
    assert_whole(remains, shipped)
    assert SECOND_SERIAL in remains.leaf.subject.rfc4514_string()


@pytest.mark.parametrize("policy", ["auto", pytest.param("trusted", marks=pytest.mark.full)])
def test_its_clock_is_set_forth_and_back_by_decades_while_it_runs(
    town: Town, enrolled: Hardware, policy: str, tmp_path: Path, record_property: Note
) -> None:
    hardware = replace(town.twin(enrolled), port=free_port())
    config = town.configuration(clock=policy, storage="blob")
    disk.write(hardware.disk, "/etc/holdfast/holdfast.yaml", config)
    before = examine(hardware)
    issued = town.issued
    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.unit_started("mosquitto.service")
        for year in (2056, 1981, 2099, 2003) if FULL else (2056, 1981):
            start = len(gateway.entries)
            gateway.ask(f"date --utc --set {year}-03-01T12:00:00")
            gateway.message(CLOCK_SET, start=start)
            files = gateway.ask("ls /var/lib/holdfast/identities/ldevid/current/")
            assert files.split() == ["anchors.pem", "chain.pem", "key.pem"]
        start = len(gateway.entries)
        gateway.ask(f"date --utc --set @{int(town.clock().timestamp())}")
        gateway.message(CLOCK_SET, start=start)
        gateway.ask("systemctl reload holdfast.service")  # returns when a step was made
        status = gateway.holdfast("status")["identities"][0]
        assert status["credential"]["state"] == "active"
        assert status["transaction"]["state"] == "none"
        found = greet(town, hardware.port, tmp_path)
        assert found.answer == CONNACK
        assert gateway.ask("systemctl show --property NRestarts --value holdfast.service") == "0"
        gateway.shut_down()
    after = examine(hardware)
    assert_whole(after, town.shipped)
    assert after.leaf.not_valid_after_utc >= before.leaf.not_valid_after_utc
    assert town.issued - issued <= MOST_CERTIFICATES
    record_property("certificates while the clock jumped", town.issued - issued)
