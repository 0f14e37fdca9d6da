"""Pledges that are told nothing but their maker's anchors, on links of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.links import Net, need_namespaces
from discovery.parties import Maker, registrar


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    need_namespaces()


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as made:
        yield made


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.found(tmp_path_factory.mktemp("maker") / "works")


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
