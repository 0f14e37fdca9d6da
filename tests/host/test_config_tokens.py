"""Tokens in the configuration: what is read, and each rule with a file that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.host.config import TokenSettings, load
from holdfast.keys.open import Pkcs11Settings, TpmSettings
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import ConfigError

MINIMAL = "registrars: [registrar.example:8443]\nmanufacturer: {anchors: anchors.pem}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("anchors.pem", "module.so", "other.so", "idevid.pem"):
        (tmp_path / name).write_text("content")
    for name in ("pin", "other-pin"):
        (tmp_path / name).write_text(f"{name}-1234\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def read(home: Path, text: str, *, credentials: Path | None = None):
    path = home / "holdfast.yaml"
    path.write_text(MINIMAL + text)
    return load(path, credentials=credentials)


def faults(home: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(home, text)
    assert "1234" not in caught.value.detail
    return [line.removeprefix(f"{home / 'holdfast.yaml'}:") for line in caught.value.detail.split("\n")]


def test_a_token_in_full(home: Path) -> None:
    settings = read(
        home,
        "keys:\n  store: pkcs11\n  pkcs11:\n    uri: pkcs11:token=gateway;serial=17\n    module: module.so\n"
        "    pin-file: pin\n    label-prefix: gw17\n    certificates: false\n",
    )
    assert settings.keys.token == TokenSettings(
        parse("pkcs11:token=gateway;serial=17"), home / "module.so", home / "pin", "gw17", certificates=False
    )
    store = settings.keys.store_settings(home / "keys")
    assert isinstance(store, Pkcs11Settings)
    assert (store.module, store.uri.token, store.directory) == (home / "module.so", "gateway", home / "keys")
    assert (store.prefix, store.certificates) == ("gw17", False)
    assert store.pin is not None
    assert store.pin() == b"pin-1234"
    assert "1234" not in repr(store)


def test_a_uri_can_say_everything(home: Path) -> None:
    uri = f"pkcs11:?module-path={home}/module.so&pin-source=file:{home}/pin"
    token = read(home, f"keys:\n  pkcs11: {{uri: '{uri}'}}\n").keys.token
    assert token is not None
    assert (token.module, token.pin_file) == (home / "module.so", home / "pin")
    assert (token.prefix, token.certificates) == ("holdfast", True)


def test_a_systemd_credential_gives_the_pin(home: Path) -> None:
    (home / "credentials").mkdir()
    (home / "credentials" / "token-pin").write_text("5678")
    text = "keys:\n  pkcs11: {uri: 'pkcs11:', module: module.so, pin-credential: token-pin}\n"
    token = read(home, text, credentials=home / "credentials").keys.token
    assert token is not None
    assert token.pin_file == home / "credentials" / "token-pin"
    assert any("no such credential" in fault for fault in faults(home, text))


def test_without_a_token_the_tpm_is_the_home(home: Path) -> None:
    for text in ("", "keys: {store: tpm}\n", "keys: {tcti: 'device:/dev/tpm1'}\n"):
        settings = read(home, text)
        assert settings.keys.token is None
        assert settings.idevid.token is None
        assert isinstance(settings.keys.store_settings(home), TpmSettings)


KEYS = "keys:\n  pkcs11: {uri: 'pkcs11:token=gw', module: module.so, pin-file: pin}\n"


@pytest.mark.parametrize(
    ("idevid", "uri", "module", "pin"),
    [
        ("uri: 'pkcs11:object=idevid'", "pkcs11:token=gw;object=idevid;type=private", "module.so", "pin"),
        (
            "uri: 'pkcs11:token=gw;id=%01;type=private'",
            "pkcs11:token=gw;id=%01;type=private",
            "module.so",
            "pin",
        ),
        (
            "uri: 'pkcs11:object=i', pin-file: other-pin",
            "pkcs11:token=gw;object=i;type=private",
            "module.so",
            "other-pin",
        ),
        # Another token, or the same one by another module: our PIN is not for it.
        ("uri: 'pkcs11:token=maker;object=i'", "pkcs11:token=maker;object=i", "module.so", None),
        ("uri: 'pkcs11:object=i', module: other.so", "pkcs11:object=i", "other.so", None),
        (
            "uri: 'pkcs11:token=maker;object=i', pin-file: other-pin",
            "pkcs11:token=maker;object=i",
            "module.so",
            "other-pin",
        ),
    ],
)
def test_the_idevid_on_a_token(home: Path, idevid: str, uri: str, module: str, pin: str | None) -> None:
    token = read(home, f"{KEYS}idevid: {{{idevid}}}\n").idevid.token
    assert token is not None
    assert token.uri.text() == uri
    assert token.module == home / module
    assert token.pin_file == (home / pin if pin else None)


def test_the_idevid_on_a_token_and_our_keys_in_the_tpm(home: Path) -> None:
    settings = read(
        home, "idevid:\n  {uri: 'pkcs11:object=i', module: module.so, certificate: {file: idevid.pem}}\n"
    )
    assert settings.keys.token is None
    assert settings.idevid.token == TokenSettings(parse("pkcs11:object=i"), home / "module.so")
    assert settings.idevid.certificate_file == home / "idevid.pem"


U = "4: keys.pkcs11.uri: "
PARSED = f"{U}PKCS#11 URI: "


def token(text: str) -> str:
    return f"keys:\n  pkcs11: {{{text}}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (token("module: module.so"), f"{U}is missing"),
        (token("uri: token=gw, module: module.so"), f"{PARSED}it does not start with pkcs11:"),
        (token("uri: 'pkcs11:token=a b', module: module.so"), f"{PARSED}token: a character"),
        (token("uri: 'pkcs11:?pin-value=1234', module: module.so"), f"{U}must hold no PIN"),
        (
            token("uri: 'pkcs11:?pin-source=|/bin/pin', module: module.so"),
            f"{PARSED}a command as pin-source",
        ),
        (
            token("uri: 'pkcs11:?pin-value=1234&pin-source=file:/p', module: module.so"),
            f"{PARSED}pin-source and pin-value",
        ),
        (token("uri: 'pkcs11:?module-path=p11.so'"), f"{PARSED}module-path must be"),
        (token("uri: 'pkcs11:color=red', module: module.so"), f"{U}has an attribute"),
        (token("uri: 'pkcs11:object=x', module: module.so"), f"{U}must name a token only"),
        (token("uri: 'pkcs11:'"), f"{U}needs a module"),
        (token("uri: 'pkcs11:?module-name=softhsm2'"), f"{U}needs a module"),
        (token("uri: 'pkcs11:', module: missing.so"), "4: keys.pkcs11.module: "),
        (
            token("uri: 'pkcs11:?module-path=/m.so', module: module.so"),
            "4: keys.pkcs11.module: says which module, and so does uri",
        ),
        (token("uri: 'pkcs11:', module: module.so, pin-file: missing"), "4: keys.pkcs11.pin-file: "),
        (
            token("uri: 'pkcs11:', module: module.so, pin-file: module.so"),
            "4: keys.pkcs11.pin-file: ",
        ),
        (
            token("uri: 'pkcs11:?pin-source=/etc/pin', module: module.so, pin-file: pin"),
            f"{U}says where the PIN is, and so does pin-file",
        ),
        (token("uri: 'pkcs11:', module: module.so, label-prefix: gw-1"), "4: keys.pkcs11.label-prefix: "),
        ("keys: {store: pkcs11}\n", "3: keys.store: needs a pkcs11 section"),
        ("keys:\n  store: tpm\n  pkcs11: {uri: 'pkcs11:', module: module.so}\n", "4: keys.store: excludes"),
        (f"{KEYS}idevid: {{uri: 'pkcs11:token=gw'}}\n", "5: idevid.uri: must name the key"),
        (f"{KEYS}idevid: {{uri: 'pkcs11:object=i;type=cert'}}\n", "5: idevid.uri: must name a private key"),
        (f"{KEYS}idevid: {{uri: 'pkcs11:object=i', handle: 0x81020001}}\n", "5: idevid.handle: is for a TPM"),
        (f"{KEYS}idevid: {{uri: 'pkcs11:object=i', auth-file: pin}}\n", "5: idevid.auth-file: is for a TPM"),
        (
            f"{KEYS}idevid: {{uri: 'pkcs11:object=i', certificate: {{nv-index: 0x01C90200}}}}\n",
            "5: idevid.certificate.nv-index: is for a TPM",
        ),
        (f"{KEYS}idevid: {{pin-file: pin}}\n", "5: idevid.pin-file: needs a uri"),
        ("idevid: {uri: 'pkcs11:object=i'}\n", "3: idevid.uri: needs a module"),
    ],
)
def test_each_fault_is_named_at_its_line(home: Path, text: str, expected: str) -> None:
    (home / "module.so").chmod(0o644)
    told = faults(home, text)
    assert len(told) == 1, told
    assert told[0].startswith(expected)
