"""What a host says of itself for the names in its certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.host.facts import HostFacts
from holdfast.wire.errors import ConfigError


def interface(network: Path, name: str, address: str, *, kind: str = "1", hardware: bool = True) -> None:
    home = network / name
    home.mkdir(parents=True)
    (home / "address").write_text(address + "\n")
    (home / "type").write_text(kind + "\n")
    if hardware:
        (home / "device").mkdir()


def test_the_first_interface_that_is_ethernet_hardware(tmp_path: Path) -> None:
    interface(tmp_path, "br0", "aa:aa:aa:aa:aa:aa", hardware=False)
    interface(tmp_path, "can0", "bb:bb:bb:bb:bb:bb", kind="280")
    interface(tmp_path, "eth0", "00:00:00:00:00:00")
    interface(tmp_path, "eth2", "02:00:5E:10:00:02")
    interface(tmp_path, "eth1", "02:00:5E:10:00:01")
    assert HostFacts(network=tmp_path)["mac"] == "02005e100001"
    assert HostFacts("eth2", network=tmp_path)["mac"] == "02005e100002"
    assert HostFacts("br0", network=tmp_path)["mac"] == "aaaaaaaaaaaa", "whoever names it means it"


@pytest.mark.parametrize("name", [None, "eth9"])
def test_a_host_without_an_address_says_so(tmp_path: Path, name: str | None) -> None:
    interface(tmp_path, "ib0", "80:00:02:08:fe:80:00:00:00:00:00:00:7c:fe", kind="32")
    for network in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"^config\.fact.*mac"):
            HostFacts(name, network=network)["mac"]


def test_the_host_name(tmp_path: Path) -> None:
    assert HostFacts(hostname=lambda: "gw-7.example.")["hostname"] == "gw-7.example"
    for nameless in ("", "localhost", " "):
        with pytest.raises(ConfigError, match=r"^config\.fact.*hostname"):
            HostFacts(hostname=lambda nameless=nameless: nameless)["hostname"]


def test_no_other_fact() -> None:
    with pytest.raises(KeyError):
        HostFacts()["__class__"]
