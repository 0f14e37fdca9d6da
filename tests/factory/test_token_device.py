"""A factory-fresh device whose IDevID is on a token."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.keys import pkcs11_objects as objects
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.brski.idevid import serial_number
from holdfast.wire.errors import ConfigError, KeyLocked, KeyStoreError
from holdfast_factory import ledger
from holdfast_factory.authority import Factory, Product, init_factory
from holdfast_factory.cli import main
from holdfast_factory.softhsm import SoftToken, make_token
from holdfast_factory.token_device import TokenPlace, make_token_device
from keys.token_home import PIN, need

pytestmark = pytest.mark.pkcs11
SERIAL = "GW-0001"


@pytest.fixture
def token(tmp_path: Path) -> SoftToken:
    need("softhsm2-util:softhsm2")
    made = make_token(tmp_path / "token", "gateway", PIN)
    made.see()
    return made


def place(token: SoftToken, pin: str = PIN) -> TokenPlace:
    return TokenPlace(token.module, parse(token.uri), pin.encode)


def test_made_read_back_and_made_again(
    factory: Factory, token: SoftToken, tmp_path: Path, now: datetime
) -> None:
    out = tmp_path / "out"
    device = make_token_device(factory, place(token), SERIAL, out, now)
    assert device.new
    assert device.idevid_uri == "pkcs11:token=gateway;object=idevid;id=%69%64%65%76%69%64;type=private"
    assert json.loads((out / "device.json").read_text())["idevid_uri"] == device.idevid_uri
    with open_store(Pkcs11Settings(token.module, parse(token.uri), tmp_path, PIN.encode)) as store:
        certificate = store.idevid_certificate(parse(device.idevid_uri))
        assert serial_number(certificate) == SERIAL
        assert store.idevid(parse(device.idevid_uri)).signer().public_key() == certificate.public_key()
        assert store.refs() == frozenset(), "the maker's key is not the agent's"
    chain = x509.load_pem_x509_certificates((out / "idevid-chain.pem").read_bytes())
    assert chain[0] == certificate
    (entry,) = ledger.entries(factory.directory)
    assert (entry.serial, entry.certificate) == (SERIAL, device.certificate_sha256)
    again = make_token_device(factory, place(token), SERIAL, out, now)
    assert not again.new
    assert again.certificate_sha256 == device.certificate_sha256
    assert len(ledger.entries(factory.directory)) == 1


def test_one_token_is_one_device_and_one_serial_one_token(
    factory: Factory, token: SoftToken, tmp_path: Path, now: datetime
) -> None:
    make_token_device(factory, place(token), SERIAL, tmp_path / "out", now)
    with pytest.raises(KeyStoreError, match=r"factory\.other-serial"):
        make_token_device(factory, place(token), "GW-0002", tmp_path / "out", now)
    stranger = init_factory(tmp_path / "stranger", Product("masa.other:9443"), now)
    with pytest.raises(KeyStoreError, match=r"factory\.other-serial"):
        make_token_device(stranger, place(token), SERIAL, tmp_path / "out", now)
    second = make_token(tmp_path / "second", "gateway", PIN)
    second.see()
    with pytest.raises(KeyStoreError, match=r"factory\.serial-used"):
        make_token_device(factory, place(second), SERIAL, tmp_path / "out", now)


def test_an_interrupted_run_is_taken_up_with_the_same_key(
    factory: Factory, token: SoftToken, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(objects, "put_certificate", cut)
    with pytest.raises(KeyboardInterrupt):
        make_token_device(factory, place(token), SERIAL, tmp_path / "out", now)
    monkeypatch.undo()
    device = make_token_device(factory, place(token), SERIAL, tmp_path / "out", now)
    assert device.new
    first, second = ledger.entries(factory.directory)
    assert first.key == second.key


def test_a_certificate_for_another_key_is_found_in_the_inspection(
    factory: Factory, token: SoftToken, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = objects.put_certificate
    root = factory.root.certificate
    monkeypatch.setattr(objects, "put_certificate", lambda s, label, _: real(s, label, root))
    with pytest.raises(KeyStoreError, match=r"key\.idevid-mismatch"):
        make_token_device(factory, place(token), SERIAL, tmp_path / "out", now)


def test_a_wrong_pin_and_a_wrong_serial(
    factory: Factory, token: SoftToken, tmp_path: Path, now: datetime
) -> None:
    with pytest.raises(KeyLocked, match=r"key\.pin-wrong"):
        make_token_device(factory, place(token, "0000"), SERIAL, tmp_path / "out", now)
    with pytest.raises(ConfigError):
        make_token_device(factory, place(token), "no/serial_", tmp_path / "out", now)
    assert ledger.entries(factory.directory) == ()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("softhsm2-util:softhsm2")
    assert main(["init", str(tmp_path / "f"), "--masa-url", "masa.example:9443"]) == 0
    common = [
        "make-device",
        "--factory",
        str(tmp_path / "f"),
        "--serial",
        SERIAL,
        "--out",
        str(tmp_path / "o"),
    ]
    state = tmp_path / "token"
    assert main([*common, "--token-state", str(state)]) == 0
    assert "IDevID at pkcs11:token=gateway;object=idevid;" in capsys.readouterr().out
    pin = state / "pin"
    assert pin.stat().st_mode & 0o777 == 0o600
    token = make_token(state, "gateway", "unused")
    by_uri = [*common, "--token", token.uri, "--module", str(token.module), "--pin-file", str(pin), "--json"]
    assert main(by_uri) == 0
    device = json.loads(capsys.readouterr().out)
    assert (device["new"], device["idevid_handle"]) == (False, "")
    assert main([*common, "--token", token.uri]) == 1
    assert "factory.token" in capsys.readouterr().err
    certificate = x509.load_pem_x509_certificate((tmp_path / "o" / "idevid.pem").read_bytes())
    assert certificate.public_bytes(Encoding.DER)
