"""Devices whose registrars were found: turns, distrust, memory, the maker's cloud, sign-in pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from secrets import token_bytes

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import DiscoverySettings
from holdfast.host.discovery.gathering import Findings
from holdfast.host.transport import Channel, Link
from holdfast.life.record import DomainState
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced, Role
from holdfast.wire.errors import TransportError
from holdfast.worker.ports import Environment
from holdfast.worker.step import Step, StepReport
from holdfast_sim.faults import Fault
from holdfast_sim.link import InProcessTransport
from holdfast_sim.site import Server, Site
from holdfast_sim.world import World
from lifecycle.cuts import power_cuts
from lifecycle.device import REGISTRAR, SERIAL, Device

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


# --- the registrar moves while the device belongs to it ------------------------------------------------

LATER = "later.example"
LIAR = "liar.example"


class Moving(Finder):
    """A device whose registrar moves, and a liar who answers. ``met``: who was connected to."""

    def __init__(self, directory: Path, *faults: str) -> None:
        super().__init__(Device(directory, faults=faults), GOOD)
        self.liar = Site(
            World.create(
                lambda: self.device.clock.now, token_bytes, manufacturer=self.device.world.manufacturer
            )
        )
        self.at = {"registrar.example": self.device.site}
        self.met: list[str] = []

    def move(self, *where: str) -> None:
        """The registrar is at *where* alone, and mdns says so; the liar answers everywhere else."""
        self.at = dict.fromkeys(where, self.device.site)

    def open(self, channel: Channel) -> Link:
        self.met.append(channel.host)
        if channel.host not in self.at:
            raise TransportError("transport.unreachable", f"{channel.host}: connection refused")
        servers: dict[tuple[str, int], Server] = {(channel.host, channel.port): "registrar"}
        return InProcessTransport(self.at[channel.host], servers).open(channel)

    @property
    def environment(self) -> Environment:
        return replace(super().environment, transport=self)

    def announce(self, *hosts: str) -> None:
        self.found = tuple((Source.MDNS, Announced(h, 8443, Role.PROXY, h)) for h in hosts)

    def live(self, steps: int = 6, generation: int = 1) -> None:
        """Step at each due time, until there is a certificate of that *generation*."""
        for _ in range(steps):
            due = self.step().due
            if self.device.identity.credential.generation >= generation:
                break
            self.device.clock.now = max(self.device.clock.now, due)


def vouched_and_left(tmp_path: Path, *faults: str) -> Moving:
    """A device that has its voucher, and whose registrar went away before the first certificate."""
    moving = Moving(tmp_path, *faults, "cacerts:drop-before:1")
    moving.step()
    record = moving.device.record
    assert record.domain.state is DomainState.VOUCHED
    assert not moving.device.active
    moving.at = {}
    return moving


def test_a_registrar_that_moves_after_the_voucher_is_found_again(tmp_path: Path) -> None:
    moving = vouched_and_left(tmp_path)
    voucher = moving.device.record.domain.voucher
    moving.move(LATER)
    moving.announce(LATER)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live()
    record = moving.device.record
    assert moving.device.active
    assert record.domain.registrar == f"{LATER}:8443"
    assert record.domain.voucher == voucher
    assert record.search.good is not None
    assert record.search.good.endpoint == f"{LATER}:8443"


def test_a_liar_who_answers_for_a_moved_registrar_is_refused_and_the_voucher_kept(tmp_path: Path) -> None:
    moving = vouched_and_left(tmp_path)
    voucher = moving.device.record.domain.voucher
    moving.at = {LIAR: moving.liar}
    moving.announce(LIAR)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live(2)
    record = moving.device.record
    assert LIAR in moving.met
    assert len(moving.liar.transcript) == 0
    assert record.domain.state is DomainState.VOUCHED
    assert record.domain.voucher == voucher
    assert record.domain.registrar == REGISTRAR
    refusal = record.search.refusal_of(f"{LIAR}:8443")
    assert refusal is not None
    assert (refusal.code.partition(".")[0], refusal.distrusted) == ("chain", True)
    # The honest one comes back elsewhere, behind the liar in the announcements.
    moving.at |= {LATER: moving.device.site}
    moving.announce(LIAR, LATER)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live()
    assert moving.device.active
    assert moving.device.record.domain.registrar == f"{LATER}:8443"
    assert moving.device.record.domain.voucher == voucher


def test_a_stranger_with_the_registrars_old_address_does_not_cost_the_voucher(tmp_path: Path) -> None:
    """A new lease: somebody else has the address now, and the registrar another."""
    moving = vouched_and_left(tmp_path)
    voucher = moving.device.record.domain.voucher
    moving.at = {"registrar.example": moving.liar, LATER: moving.device.site}
    moving.announce("registrar.example", LATER)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live()
    assert moving.device.active
    assert moving.device.record.domain.voucher == voucher
    assert len(moving.liar.transcript) == 0


def test_a_domain_that_is_gone_is_given_up_after_one_search(tmp_path: Path) -> None:
    """Nobody shows its certificates any more: whose the device is, is asked anew, and not for ever sought."""
    moving = vouched_and_left(tmp_path)
    voucher = moving.device.record.domain.voucher
    moving.at = {"registrar.example": moving.liar}
    moving.liar.world.sell(SERIAL)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live(8)
    assert moving.device.active
    assert moving.device.record.domain.voucher != voucher


def test_a_renewal_finds_the_registrar_where_it_moved_to(tmp_path: Path) -> None:
    moving = Moving(tmp_path)
    moving.step()
    first = moving.device.identity.credential
    moving.move(LATER)
    moving.announce(LATER)
    moving.device.pass_time(timedelta(days=80))
    moving.live(generation=2)
    assert moving.device.identity.credential.generation == first.generation + 1
    assert moving.device.record.domain.registrar == f"{LATER}:8443"


def test_a_renewal_on_request_goes_on_where_the_registrar_moved_to(tmp_path: Path) -> None:
    """Its turn has not come, so nothing but the request would make it."""
    moving = Moving(tmp_path)
    moving.step()
    moving.move(LATER)
    moving.announce(LATER)
    moving.device.pass_time(timedelta(minutes=11))
    Step(moving.environment, renew=frozenset({"ldevid"})).run()
    assert moving.device.record.domain.registrar == f"{LATER}:8443"
    assert moving.device.identity.credential.generation == 2


def test_a_moved_registrar_is_not_sought_at_each_attempt(tmp_path: Path) -> None:
    moving = vouched_and_left(tmp_path)
    moving.found = ()
    moving.device.pass_time(timedelta(minutes=11))
    began, searches = moving.device.clock.now, len(moving.searches)
    moving.live(20)
    tens = (moving.device.clock.now - began) // timedelta(minutes=10)
    assert 1 <= len(moving.searches) - searches <= min(20, tens + 1)
    assert moving.device.record.domain.state is DomainState.VOUCHED


def test_of_two_configured_registrars_the_other_serves(tmp_path: Path) -> None:
    moving = Moving(tmp_path)
    moving.device.settings = replace(
        moving.device.settings, registrars=(REGISTRAR, f"{LATER}:8443"), discovery=None
    )
    moving.step()
    assert moving.device.active
    moving.move(LATER)
    moving.device.pass_time(timedelta(days=80))
    moving.live(generation=2)
    assert moving.device.record.domain.registrar == f"{LATER}:8443"
    assert moving.device.identity.credential.generation == 2
    assert moving.searches == []


def test_power_cuts_while_the_registrar_is_sought_again(tmp_path: Path) -> None:
    """Around each commit and each request: the next steps end at the registrar, with the same voucher."""
    for cut in power_cuts():
        moving = vouched_and_left(tmp_path / str(cut.point))
        voucher = moving.device.record.domain.voucher
        moving.at = {LIAR: moving.liar, LATER: moving.device.site}
        moving.announce(LIAR, LATER)
        moving.device.pass_time(timedelta(minutes=11))
        with cut.awaited():
            moving.live(2)
        moving.live()
        record = moving.device.record
        assert moving.device.active, cut.point
        assert record.domain.voucher == voucher, cut.point
        assert record.domain.registrar == f"{LATER}:8443", cut.point
    assert cut.point > 15
    assert not cut.happened


def test_power_cuts_in_the_first_search(tmp_path: Path) -> None:
    """Around each commit and each request: the liar stays distrusted once he was refused, and is asked again
    at most once; who was good is remembered."""
    liar = (Source.MDNS, Announced(LIAR, 8443, Role.PROXY, "a liar", priority=0))
    good = (Source.MDNS, Announced(LATER, 8443, Role.PROXY, "good", priority=1))
    for cut in power_cuts():
        moving = Moving(tmp_path / str(cut.point))
        moving.liar.world.sell(SERIAL)
        moving.liar = Site(moving.liar.world, [Fault.parse("requestvoucher:foreign-signer")])
        moving.at = {LIAR: moving.liar, LATER: moving.device.site}
        moving.found = (DEAD, liar, good)
        with cut.awaited():
            moving.live(2)
        moving.live()
        record = moving.device.record
        assert moving.device.active, cut.point
        assert record.domain.registrar == f"{LATER}:8443", cut.point
        assert record.search.good is not None
        assert record.search.good.endpoint == f"{LATER}:8443", cut.point
        refusal = record.search.refusal_of(f"{LIAR}:8443")
        assert refusal is not None, cut.point
        assert (refusal.code, refusal.distrusted) == ("voucher.signer-chain", True), cut.point
        asked = [e.target for e in moving.liar.transcript if e.target.endswith("/requestvoucher")]
        assert 1 <= len(asked) <= 2, cut.point
    assert cut.point > 15
    assert not cut.happened
