"""Devices whose registrars were found: turns, distrust, memory, the maker's cloud, sign-in pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import DiscoverySettings
from holdfast.host.discovery.gathering import Findings
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced, Role
from holdfast.worker.ports import Environment
from holdfast.worker.step import Step, StepReport
from lifecycle.device import REGISTRAR, Device

GOOD = (Source.MDNS, Announced("registrar.example", 8443, Role.PROXY, "good"))
DEAD = (Source.MDNS, Announced("dead.example", 1, Role.PROXY, "dead"))
CLOUD = (Source.CLOUD, Announced("localhost", 443, Role.CLOUD, "cloud"))


class Finder:
    """A device, and what its searches find."""

    def __init__(self, device: Device, *found: tuple[Source, Announced]) -> None:
        self.device = device
        self.found = found
        self.searches: list[float] = []
        device.settings = replace(device.settings, registrars=(), discovery=DiscoverySettings())

    @property
    def environment(self) -> Environment:
        def search(seconds: float, _refused: object) -> Findings:
            self.searches.append(seconds)
            return Findings(self.found, () if self.found else ("mdns: nobody",))

        return replace(self.device.environment, search=search)

    def step(self) -> StepReport:
        return Step(self.environment).run()


def test_a_dead_place_is_left_for_the_next_in_one_step(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path), DEAD, GOOD)
    finder.step()
    assert finder.device.active
    search = finder.device.record.search
    assert search.good is not None
    assert search.good.endpoint == REGISTRAR
    assert [(r.endpoint, r.code, r.distrusted) for r in search.refusals] == [
        ("dead.example:1", "transport.unreachable", False)
    ]


def test_a_search_that_finds_nobody_says_so_and_the_next_listens_longer(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path))
    for _ in range(3):
        report = finder.step()
        finder.device.clock.now = report.due
    assert finder.searches == [3, 6, 12]
    trouble = finder.device.record.schedule.trouble
    assert trouble is not None
    assert (trouble.code, trouble.detail) == ("discovery.nothing-found", "mdns: nobody")
    assert finder.device.record.search.silent == ("mdns: nobody",)


def test_a_liar_is_distrusted_and_a_sign_in_page_is_not(tmp_path: Path) -> None:
    for fault, code, distrusted in (
        ("requestvoucher:foreign-signer", "voucher.signer-chain", True),
        ("requestvoucher:wrong-type:0:type=text/html", "network.captive-portal", False),
        ("requestvoucher:redirect:0:to=http://portal.example/:code=302", "network.captive-portal", False),
        ("requestvoucher:status:0:code=511", "network.captive-portal", False),
    ):
        place = tmp_path / fault.replace("/", "-")
        finder = Finder(Device(place, faults=[fault]), GOOD)
        finder.step()
        (refusal,) = finder.device.record.search.refusals
        assert (refusal.code, refusal.distrusted) == (code, distrusted)


def cloud(tmp_path: Path, fault: str, anchors: bool = True) -> Finder:
    device = Device(tmp_path, faults=[fault])
    device.servers["localhost", 443] = "registrar"
    world = device.world
    known = world.domain.anchors if anchors else world.impostor.anchors
    file = tmp_path / "cloud.pem"
    file.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in known))
    finder = Finder(device, CLOUD)
    maker = replace(device.settings.manufacturer, cloud_registrar="localhost:443", cloud_anchors=file)
    device.settings = replace(device.settings, manufacturer=maker)
    return finder


def test_the_maker_sends_the_device_on_to_its_owner(tmp_path: Path) -> None:
    finder = cloud(tmp_path, f"requestvoucher:redirect:1:to=https://{REGISTRAR}/:code=307")
    finder.step()
    assert finder.device.active
    assert finder.device.record.domain.registrar == REGISTRAR


@pytest.mark.parametrize("fault", ["requestvoucher:status:0:code=404"])
def test_the_makers_registrar_is_not_met_provisionally(tmp_path: Path, fault: str) -> None:
    finder = cloud(tmp_path, fault, anchors=False)
    finder.step()
    (refusal,) = finder.device.record.search.refusals
    assert refusal.code.startswith("chain.")
    assert refusal.distrusted
