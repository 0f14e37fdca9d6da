"""Pledges that are told nothing but their maker's anchors, on links of their own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from discovery.links import Host, Net, Process
from discovery.parties import Maker, Pledge, registrar


@dataclass
class Town:
    """Who is there, and where their files are."""

    net: Net
    maker: Maker
    pledge: Host
    proxy: Host
    owner: Host
    directory: Path

    def start_proxy(self, *options: str) -> Process:
        """The proxy's own gateway is told no registrar either: it finds the owner's on its other link."""
        config = self.directory / "proxy.yaml"
        config.write_text(
            f"manufacturer: {{anchors: {self.directory / 'owner/manufacturer-root.pem'}}}\n"
            f"state-directory: {self.directory / 'nothing'}\n"
            "discovery: {order: [mdns, grasp]}\njoin-proxy: {interfaces: [eth0]}\n"
        )
        process = self.proxy.start(
            sys.executable, "-m", "holdfast.cli.main", "-c", str(config), "proxy", "--json", *options
        )
        assert json.loads(process.line())["interfaces"] == ["eth0"]
        return process


def test_a_registrar_found_by_multicast_dns(net: Net, maker: Maker, tmp_path: Path) -> None:
    net.link("lan")
    pledge = net.host("pledge", eth0=("lan", "10.9.0.1/24"))
    owner = net.host("owner", eth0=("lan", "10.9.0.2/24"))
    registrar(
        owner, tmp_path / "owner", maker, "--host", "10.9.0.2", "--announce", "mdns", "--announce-on", "eth0"
    )
    device = maker.pledge(tmp_path / "pledge")
    told = device.agent(pledge, "step")
    assert told.get("trouble", told) is None, told
    assert told["state"] == "domain vouched, ldevid active"


def test_a_registrar_found_by_grasp_on_ipv6_alone(net: Net, maker: Maker, tmp_path: Path) -> None:
    net.link("lan")
    pledge = net.host("pledge", eth0=("lan",))
    owner = net.host("owner", eth0=("lan",))
    at = owner.link_local("eth0")
    registrar(
        owner,
        tmp_path / "owner",
        maker,
        *("--host", "::", "--announce", "grasp", "--announce-on", "eth0", "--announce-address", at),
    )
    device = maker.pledge(tmp_path / "pledge")
    told = device.agent(pledge, "step")
    assert told.get("trouble", told) is None, told
    assert told["state"] == "domain vouched, ldevid active"


ULA = "fd00:9::"
PATIENCE = 90.0
"""Seconds: after a refusal the device waits a little before it asks anybody else."""


@pytest.fixture
def town(net: Net, maker: Maker, tmp_path: Path) -> Town:
    """Two links, IPv6 alone: the pledge and a proxy on one, the proxy and the owner on the other."""
    net.link("floor")
    net.link("office")
    pledge = net.host("pledge", eth0=("floor",))
    proxy = net.host("proxy", eth0=("floor",), eth1=("office", f"{ULA}2/64"))
    owner = net.host("owner", eth0=("office", f"{ULA}1/64"))
    known = ("--announce", "mdns", "--announce", "grasp", "--announce-on", "eth0")
    registrar(owner, tmp_path / "owner", maker, "--host", f"{ULA}1", *known)
    return Town(net, maker, pledge, proxy, owner, tmp_path)


def test_through_the_proxy_and_past_one_who_wins_every_race(
    town: Town, record_property: Callable[[str, object], None]
) -> None:
    """Zero configuration beside the anchors. The one on the pledge's own link claims to be a proxy, floods
    ten times a second, answers every question, and serves the maker's devices; only the maker's signature he
    has not. He wins every race since nobody else is there until he was asked."""
    evil = town.net.host("evil", eth0=("floor",))
    at = evil.link_local("eth0")
    known = ("--announce", "mdns", "--announce", "grasp", "--announce-on", "eth0", "--announce-address", at)
    liar = registrar(
        evil,
        town.directory / "evil",
        town.maker,
        *("--host", "::", *known, "--announce-every", "0.1", "--announce-as", "proxy"),
        *("--fault", "requestvoucher:foreign-signer", "--transcript", str(town.directory / "evil.jsonl")),
    )
    order = "discovery: {order: [grasp, mdns], interfaces: [eth0]}\n"
    device = town.maker.pledge(town.directory / "pledge", order)
    told = device.agent(town.pledge, "step")
    assert told["state"] != "domain vouched, ldevid active"
    assert device.refusals == {f"[{at}%eth0]:{liar.port}": "voucher.signer-chain"}, (
        "he was asked, and refused"
    )
    town.start_proxy()
    refused = _until_active(device, town.pledge)
    assert refused[f"[{at}%eth0]:{liar.port}"] == "voucher.signer-chain"
    record_property("liars_refused", len(refused))
    words = device.words(town.pledge, "status", "--json")
    assert "active" in words


def _until_active(device: Pledge, host: Host) -> dict[str, str]:
    """Steps until the device has its identity; who was refused on the way, and why. A step that comes before
    its time does nothing."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        told = device.agent(host, "step")
        if told["state"] == "domain vouched, ldevid active":
            return device.refusals
    raise AssertionError(told)


def test_ten_thousand_announcements_cost_bounded_memory(
    town: Town, record_property: Callable[[str, object], None]
) -> None:
    """Announcements of places that are nowhere, and as many malformed ones, to pledge and proxy."""
    proxy = town.start_proxy()
    quiet = proxy.peak_kib
    evil = town.net.host("evil", eth0=("floor",))
    shouter = evil.start(sys.executable, "-m", "discovery.shouter", "eth0", "10000")
    assert shouter.line() == "ready\n"
    probe = "discovery.listener"
    heard = json.loads(town.pledge.python("-m", probe, "12").stdout)
    sent = int(shouter.line())
    assert sent >= 20_000
    assert heard["heard"] >= 1_000, heard
    assert heard["places"] <= 2 * 32 * 4
    assert heard["grown_kib"] < 8 * 1024, heard
    assert proxy.lives
    grown = proxy.peak_kib - quiet
    assert grown < 8 * 1024
    record_property("packets_sent", sent)
    record_property("announcements_heard", heard["heard"])
    record_property("pledge_grown_kib", heard["grown_kib"])
    record_property("pledge_peak_kib", heard["peak_kib"])
    record_property("proxy_grown_kib", max(grown, 0))
    record_property("proxy_peak_kib", proxy.peak_kib)
    device = town.maker.pledge(town.directory / "pledge")
    assert _until_active(device, town.pledge) == {}, "the proxy is as it was"
