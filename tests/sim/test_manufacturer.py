"""A manufacturer of our own, and one that a factory line left in a directory."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.wire.brski.messages import masa_url, serial_number
from holdfast.wire.errors import ConfigError
from holdfast_factory.authority import Product, init_factory
from holdfast_sim import directory as pki
from holdfast_sim.ca import NEVER_EXPIRES
from holdfast_sim.cli import duration, main
from holdfast_sim.manufacturer import Manufacturer
from sim.actors import SERIAL, START, Bench, Time, make_world


def random(count: int) -> bytes:
    return bytes(range(count))


def test_an_idevid_is_what_8021ar_wants(bench: Bench, tmp_path: Path) -> None:
    leaf, issuer = bench.device.chain
    assert serial_number(leaf) == SERIAL
    assert masa_url(leaf) == "https://masa.example/.well-known/brski"
    assert leaf.not_valid_after_utc == NEVER_EXPIRES
    leaf.verify_directly_issued_by(issuer)
    (tmp_path / "leaf").write_text(pki.pem(leaf))
    shown = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "leaf", "-noout", "-text"], capture_output=True, check=True
    ).stdout
    assert b"Dec 31 23:59:59 9999 GMT" in shown
    assert b"1.3.6.1.5.5.7.1.32" in shown
    assert b"othername" in shown


def test_a_factory_and_the_simulator_agree_on_files(tmp_path: Path) -> None:
    factory = init_factory(tmp_path, Product("masa.example"), START)
    manufacturer = Manufacturer.load(tmp_path, random)
    assert manufacturer.anchors == (factory.root.certificate,)
    assert manufacturer.masa.certificate == factory.masa.certificate
    bench = Bench.make(manufacturer=manufacturer)
    assert bench.ask_voucher().status == 200
    assert bench.enroll().status == 200


def test_without_the_key_of_the_idevid_ca_no_device_is_made(tmp_path: Path) -> None:
    init_factory(tmp_path, Product("masa.example"), START)
    (tmp_path / "idevid-ca-key.pem").unlink()
    manufacturer = Manufacturer.load(tmp_path, random)
    with pytest.raises(ConfigError, match="not here"):
        manufacturer.device(SERIAL, START)


def test_what_we_write_can_be_loaded_again(bench: Bench, tmp_path: Path) -> None:
    pki.write(bench.world, tmp_path)
    loaded = Manufacturer.load(tmp_path, random)
    assert loaded.masa.certificate == bench.world.manufacturer.masa.certificate
    again = replace(bench.world, manufacturer=loaded)
    assert again.manufacturer.root == bench.world.manufacturer.root


@pytest.mark.parametrize("name", ["manufacturer-root.pem", "idevid-ca.pem", "masa.pem", "masa-key.pem"])
def test_a_directory_that_is_not_whole(tmp_path: Path, name: str) -> None:
    init_factory(tmp_path, Product("masa.example"), START)
    (tmp_path / name).write_text("nothing")
    with pytest.raises(ConfigError, match=r"sim\.manufacturer"):
        Manufacturer.load(tmp_path, random)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=r"sim\.manufacturer"):
        Manufacturer.load(tmp_path, random)


def test_a_directory_of_two_factories(tmp_path: Path) -> None:
    for place in ("one", "two"):
        init_factory(tmp_path / place, Product("masa.example"), START)
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "masa-key.pem").write_bytes((two / "masa-key.pem").read_bytes())
    with pytest.raises(ConfigError, match="not the key of"):
        Manufacturer.load(one, random)
    (two / "idevid-ca.pem").write_bytes((one / "idevid-ca.pem").read_bytes())
    with pytest.raises(ConfigError, match="did not sign"):
        Manufacturer.load(two, random)


def test_a_world_repeats_itself_except_for_its_keys() -> None:
    one, two = make_world(Time()), make_world(Time())
    numbers = [[c.serial_number for c in w.domain.registrar.chain] for w in (one, two)]
    assert numbers[0] == numbers[1]
    assert len(set(numbers[0])) == 3
    ends = [w.domain.root.certificate.not_valid_after_utc for w in (one, two)]
    assert ends[0] == ends[1]


def test_names_of_servers() -> None:
    world = make_world(Time(), names=("gw.example", "::1"))
    san = world.domain.registrar.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.value.get_values_for_type(x509.DNSName) == ["gw.example"]
    assert [str(a) for a in san.value.get_values_for_type(x509.IPAddress)] == ["::1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "cacerts:unheard-of"],
        ["--validity", "soon"],
        ["--manufacturer", "/nonexistent"],
        ["--device", "../up"],
        ["--user", "nofile"],
        ["--faults", "/nonexistent"],
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("holdfast-sim: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_fault_file_that_is_no_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faults").write_text("[")
    assert main(["serve", "--faults", str(tmp_path / "faults")]) == 2
    assert "sim.fault" in capsys.readouterr().err


def test_durations() -> None:
    assert duration("never") is None
    assert [duration(t).total_seconds() for t in ("90s", "10m", "1h", "2d")] == [90, 600, 3600, 172800]  # type: ignore[union-attr]
    for bad in ("", "1", "h", "0h", "-1h", "1.5h", "999999999d", "\u0661h"):
        with pytest.raises(ConfigError):
            duration(bad)
