"""The registrar gets another address while devices belong to its domain: they find it again, and say so."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from discovery.links import Host, Net, Process
from discovery.parties import Maker, Pledge, Registrar, registrar
from holdfast.host.store import StateStore

ULA = "fd00:9::"
PATIENCE = 60.0
"""Seconds: a refused enrollment waits a little before it is tried again."""


@dataclass
class Site:
    """A link with one device and its owner, whose address and announcements change."""

    device: Pledge
    pledge: Host
    owner: Host
    runs: Registrar
    at: str = f"{ULA}2"
    crier: Process | None = None

    def announce(self, way: str) -> None:
        self.crier = self.owner.start(
            sys.executable, "-m", "discovery.crier", way, self.at, str(self.runs.port)
        )
        assert self.crier.line() == "ready\n"

    def move(self, address: str) -> None:
        """Nobody is at the old address any more, and nobody announces it."""
        assert self.crier is not None
        self.crier.close()
        self.owner.run("ip", "addr", "del", f"{self.at}/64", "dev", "eth0")
        self.owner.run("ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        self.at = address

    def live_until(self, generation: int) -> None:
        """Step until there is a certificate of that *generation*. A step before its time does nothing."""
        end = time.monotonic() + PATIENCE
        while self.generation() < generation:
            told = self.device.agent(self.pledge, "step")
            assert time.monotonic() < end, told

    @property
    def registrar_and_voucher(self) -> tuple[str, bytes]:
        record = StateStore(self.device.directory / "state").load().record
        assert record is not None
        return record.domain.registrar, record.domain.voucher

    def generation(self) -> int:
        record = StateStore(self.device.directory / "state").load().record
        return 0 if record is None else record.identity("ldevid").credential.generation


def site(net: Net, maker: Maker, tmp_path: Path, way: str, *options: str) -> Site:
    net.link("lan")
    pledge = net.host("pledge", eth0=("lan", f"{ULA}1/64"))
    owner = net.host("owner", eth0=("lan", f"{ULA}2/64"))
    runs = registrar(owner, tmp_path / "owner", maker, "--host", "::", *options)
    limits = "limits: {connect-seconds: 3}\n"  # for the address at which nobody is any more
    discovery = f"discovery: {{order: [{way}], interfaces: [eth0]}}\n"
    device = maker.pledge(tmp_path / "pledge", f"{discovery}{limits}")
    made = Site(device, pledge, owner, runs)
    made.announce(way)
    return made


def test_it_moves_after_the_voucher(net: Net, maker: Maker, tmp_path: Path) -> None:
    way = "mdns"
    there = site(net, maker, tmp_path, way, "--fault", "simpleenroll:status:1:code=503")
    there.device.agent(there.pledge, "step")
    place, voucher = there.registrar_and_voucher
    assert (place, there.generation()) == (f"[{ULA}2]:{there.runs.port}", 0)
    there.move(f"{ULA}3")
    there.announce(way)
    there.live_until(1)
    assert there.registrar_and_voucher == (f"[{ULA}3]:{there.runs.port}", voucher)


def test_it_moves_before_a_renewal(net: Net, maker: Maker, tmp_path: Path) -> None:
    way = "grasp"
    there = site(net, maker, tmp_path, way)
    there.live_until(1)
    _, voucher = there.registrar_and_voucher
    there.move(f"{ULA}3")
    there.announce(way)
    there.device.words(there.pledge, "renew")
    assert there.generation() == 2
    assert there.registrar_and_voucher == (f"[{ULA}3]:{there.runs.port}", voucher)


def test_while_nobody_finds_it_the_device_says_that_it_looks(net: Net, maker: Maker, tmp_path: Path) -> None:
    there = site(net, maker, tmp_path, "mdns")
    there.live_until(1)
    place, _ = before = there.registrar_and_voucher
    there.move(f"{ULA}3")
    there.device.words(there.pledge, "renew")
    assert there.registrar_and_voucher == before
    assert there.generation() == 1
    (reason,) = there.device.agent(there.pledge, "why")["reasons"]
    assert reason["found"].startswith(f"Its registrar {place} was sought on the network (mdns) at ")
    assert "in vain; nobody was found by mdns" in reason["found"]
    found = there.device.agent(there.pledge, "doctor")
    assert f"Its registrar {place} was sought" in json.dumps(found)
