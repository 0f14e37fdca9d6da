"""The manufacturer's PKI on disk."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import ConfigError, StateCorrupt, StateError
from holdfast_factory.authority import Factory, Product, init_factory, open_factory
from holdfast_factory.files import append_line, make_private_directory, write_file

NAMES = ("manufacturer-root", "idevid-ca", "masa")


@pytest.mark.parametrize("name", ["idevid-ca", "masa"])
def test_openssl_verifies_what_the_root_signed(factory: Factory, name: str) -> None:
    home = factory.directory
    done = subprocess.run(
        [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            home / "manufacturer-root.pem",
            home / f"{name}.pem",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_only_the_owner_reads_keys(factory: Factory) -> None:
    assert stat.S_IMODE(factory.directory.stat().st_mode) == 0o700
    for name in NAMES:
        assert stat.S_IMODE((factory.directory / f"{name}-key.pem").stat().st_mode) == 0o600


def test_root_and_issuing_ca_never_expire_and_the_signer_is_no_ca(factory: Factory) -> None:
    for authority in (factory.root, factory.idevid_ca):
        assert authority.certificate.not_valid_after_utc.year == 9999
        assert authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    signer = factory.masa.certificate.extensions
    assert not signer.get_extension_for_class(x509.BasicConstraints).value.ca
    assert signer.get_extension_for_class(x509.KeyUsage).value.digital_signature


def test_init_twice_opens_the_same_factory(factory: Factory, now: datetime) -> None:
    again = init_factory(factory.directory, factory.product, now)
    assert again.root.certificate == factory.root.certificate
    assert again.idevid_ca.key.private_numbers() == factory.idevid_ca.key.private_numbers()


def test_another_product_does_not_take_over_a_factory(factory: Factory, now: datetime) -> None:
    with pytest.raises(ConfigError) as caught:
        init_factory(factory.directory, replace(factory.product, masa_url="other.example"), now)
    assert caught.value.code == "factory.other-product"
    assert open_factory(factory.directory).product == factory.product


def test_an_interrupted_init_is_started_anew(factory: Factory, now: datetime) -> None:
    (factory.directory / "factory.json").unlink()
    (factory.directory / "masa-key.pem").unlink()
    again = init_factory(factory.directory, factory.product, now)
    assert open_factory(factory.directory).masa.certificate == again.masa.certificate


def test_a_directory_without_factory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holdfast-factory init") as caught:
        open_factory(tmp_path)
    assert caught.value.code == "factory.missing"


@pytest.mark.parametrize("name", [f"{n}{s}" for n in NAMES for s in (".pem", "-key.pem")] + ["factory.json"])
@pytest.mark.parametrize(
    "damage", [b"", b"\0\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_file_is_state_corrupt(factory: Factory, name: str, damage: bytes) -> None:
    (factory.directory / name).write_bytes(damage)
    with pytest.raises(StateCorrupt):
        open_factory(factory.directory)


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_is_not_the_certificates_is_found(
    factory: Factory, name: str, tmp_path: Path, now: datetime
) -> None:
    other = init_factory(tmp_path / "other", factory.product, now)
    (factory.directory / f"{name}-key.pem").write_bytes((other.directory / f"{name}-key.pem").read_bytes())
    with pytest.raises(StateCorrupt, match="is not the key of"):
        open_factory(factory.directory)


def test_a_signer_of_another_root_is_found(factory: Factory, tmp_path: Path, now: datetime) -> None:
    other = init_factory(tmp_path / "other", replace(factory.product, model="Other"), now)
    for suffix in (".pem", "-key.pem"):
        (factory.directory / f"masa{suffix}").write_bytes((other.directory / f"masa{suffix}").read_bytes())
    with pytest.raises(StateCorrupt):
        open_factory(factory.directory)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("masa_url", ""),
        ("masa_url", "masa example"),
        ("masa_url", "m\u00e4sa.example"),
        ("masa_url", "a" * 1025),
        ("organization", ""),
        ("model", "m" * 65),
        ("hardware_type", "not an oid"),
    ],
)
def test_unusable_products_are_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigError):
        replace(Product("masa.example"), **{field: value})


@given(st.text(), st.text(), st.text(), st.text())
def test_a_product_is_made_or_refused_by_name(masa: str, organization: str, model: str, oid: str) -> None:
    try:
        made = Product(masa, organization, model, oid)
    except ConfigError:
        return
    assert made.masa_url.isascii()


def test_a_place_that_cannot_be_written_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError):
        make_private_directory(tmp_path / "file" / "below")
    for write in (write_file, append_line):
        with pytest.raises(StateError):
            write(tmp_path / "absent" / "file", b"x")


def test_write_file_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"old")
    write_file(tmp_path / "f", b"new", private=True)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
