"""Power goes away at a moment that chance chooses, in the first boot or while a certificate is renewed.

Nothing that the drive had not flushed is safe (:mod:`machine.cache`), and the TPM gets no farewell either.
Then the gateway is switched on again, left alone, and examined. A seed names the moment and what is lost:
``MACHINE_SEED=17 make machine-test`` repeats one, ``MACHINE_CUTS=30`` makes thirty.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest

from machine import cache, disk
from machine.autopsy import assert_whole, examine
from machine.conftest import FULL
from machine.gateway import PATIENCE, STARTED, Gateway, Hardware
from machine.owner import Town

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1800)]

Note = Callable[[str, object], None]

CUTS = int(os.environ.get("MACHINE_CUTS") or (30 if FULL else 6))
"""Two thirds of them in first boots, a third in renewals."""
FIRST_BOOT_REQUESTS = 5
"""Voucher, its status, cacerts, csrattrs, enrollment: a cut is tied to the answer of one of them."""
RENEWAL_REQUESTS = 3
WHOLE_BOOT_SECONDS = 30.0
WORKER_SECONDS = 12.0
EXCHANGE_SECONDS = 0.6


def seeds(first: int, some: int) -> list[int]:
    if "MACHINE_SEED" in os.environ:
        return [int(os.environ["MACHINE_SEED"])]
    return list(range(first, first + some))


@dataclass(frozen=True)
class Moment:
    """When to cut. ``kind``: seconds count from power-on, from the agent's start, from a command, or from the
    server's answer to request ``number`` of this boot."""

    kind: str
    seconds: float
    number: int = 0

    @classmethod
    def of(cls, seed: int, chance: Random, requests: int) -> Moment:
        match seed % 3:
            case 0:
                return cls("exchange", chance.uniform(0, EXCHANGE_SECONDS), chance.randint(1, requests))
            case 1:
                return cls("agent", chance.uniform(0, WORKER_SECONDS))
            case _:
                return cls("boot", chance.uniform(0, WHOLE_BOOT_SECONDS))

    def wait(self, gateway: Gateway, town: Town, before: int) -> None:
        match self.kind:
            case "exchange":
                town.requests.wait_for(before + self.number, PATIENCE)
            case "agent":
                gateway.message(STARTED)
        gateway.cut_after(self.seconds)


def cut_and_boot_again(
    town: Town, hardware: Hardware, moment: Moment, chance: Random, note: Note, begin: str = ""
) -> None:
    """*begin*: a command that is given when the agent runs."""
    place = hardware.disk.parent
    before = place / "disk.before"
    disk.copy(hardware.disk, before)
    log = place / "writes"
    log.touch()
    count = town.requests.count
    with town.power_on(replace(hardware, log=log)) as gateway:
        if begin:
            gateway.settled()
            count = town.requests.count
            gateway.start(begin)
        moment.wait(gateway, town, count)
    shutil.move(before, hardware.disk)
    loss = cache.cut(log, hardware.disk, chance)
    assert loss.safe or moment.kind == "boot", "nothing that the gateway wrote was ever flushed"
    note("power cuts", 1)
    note("writes lost in the drive", loss.lost)
    note("writes kept by luck", loss.kept)

    disk.copy(hardware.disk, before)
    disk.recover(before)
    before.unlink()

    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.shut_down()
    remains = examine(hardware)
    assert_whole(remains, town.shipped)
    note("enrolled after a cut", 1)
    note("renewed by then", int(remains.ldevid.credential.generation > 1))
    town.scrap(hardware)


@pytest.mark.parametrize("seed", seeds(0, CUTS - CUTS // 3))
def test_first_boot(town: Town, seed: int, record_property: Note) -> None:
    chance = Random(seed)
    storage = "persistent" if seed % 2 else "blob"
    moment = Moment.of(seed, chance, FIRST_BOOT_REQUESTS)
    cut_and_boot_again(town, town.unpack(clock="trusted", storage=storage), moment, chance, record_property)


@pytest.mark.parametrize("seed", seeds(102, CUTS // 3))
def test_renewal(
    town: Town, enrolled: Hardware, enrolled_persistent: Hardware, seed: int, record_property: Note
) -> None:
    chance = Random(seed)
    hardware = town.twin(enrolled_persistent if seed % 2 else enrolled)
    moment = Moment.of(seed, chance, RENEWAL_REQUESTS)
    if moment.kind != "exchange":
        moment = Moment("command", chance.uniform(0, WORKER_SECONDS))
    cut_and_boot_again(town, hardware, moment, chance, record_property, begin="holdfast renew ldevid")
