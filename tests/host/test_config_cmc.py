"""The CMC rung of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.host.config import CmcSettings, load
from holdfast.host.config_formats import split_cmc_url
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.settings import Form, Legacy, Possession
from holdfast.wire.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_text("PEM")
    (tmp_path / "secret").write_text("s3cret-value\n")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


def cmc(home: Path, text: str, *, more: str = "") -> CmcSettings:
    path = home / "holdfast.yaml"
    path.write_text(
        "registrars: [registrar.example:8443]\nmanufacturer: {anchors: anchors.pem}\nidentities:\n"
        f"  - name: ldevid\n{more}    protocols:\n      - cmc:\n"
        + "".join(f"          {line}\n" for line in text.splitlines())
    )
    (settings,) = load(path).identities[0].protocols
    assert isinstance(settings, CmcSettings)
    return settings


def refused(home: Path, text: str, *, more: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        cmc(home, text, more=more)
    assert "s3cret" not in str(caught.value)
    return caught.value.detail


def test_nothing_said_is_the_registrars_est(home: Path) -> None:
    settings = cmc(home, "{}")
    assert settings == CmcSettings()
    assert (settings.origin, settings.path) == (None, "/.well-known/est/fullcmc")
    assert settings.secret is None


def test_every_setting_arrives(home: Path) -> None:
    text = f"""\
url: https://ca.example:9443/ca/cmc
name: government
request: crmf
identification: gateway-7
secret-file: secret
authorities: ["{"AB" * 32}"]
legacy: [sha1, v1]
return-data: false
"""
    settings = cmc(home, text)
    assert settings == CmcSettings(
        origin="https://ca.example:9443",
        path="/ca/cmc",
        name="government",
        request=Form.CRMF,
        identification="gateway-7",
        secret_file=home / "secret",
        authorities=frozenset({b"\xab" * 32}),
        legacy=frozenset(Legacy),
        return_data=False,
    )
    assert settings.secret == SharedSecret(b"s3cret-value", "gateway-7")
    decrypting = cmc(home, "possession: decryption", more="    key: {algorithm: rsa2048}\n")
    assert decrypting.possession is Possession.DECRYPTION


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url: ftp://ca.example/", "must start with http:// or https://"),
        ("url: http://ca.example/cmc?x=1", "must have no query"),
        ("url: http://ca.example/", "EST is https:// alone"),
        ("url: http://user:s3cret@ca.example/cmc", "must hold no user and no password"),
        ("legacy: [md5]", "must be one of sha1, v1"),
        ("request: est", "must be one of pkcs10, crmf, simple"),
        ("identification: me", "needs a secret-file"),
        ("secret-file: secret\nsecret-credential: gone", "excludes secret-file"),
        ("secret-file: gone", "No such file or directory"),
        ("secret-credential: gone", "no such credential"),
        ("secret: s3cret", "a secret never stands in the configuration"),
        ("possession: decryption", "a p256 key cannot decrypt"),
        ("secret-file: secret\npossession: decryption", "excludes secret-file"),
        ("request: simple", "needs a url of https://"),
        ("request: simple\nurl: http://ca.example/cmc", "needs a url of https://"),
        ("request: simple\nurl: https://ca.example/cmc\nsecret-file: secret", "is not for a simple request"),
        ("authorities: [abc]", "authorities"),
    ],
)
def test_each_fault_is_named(home: Path, text: str, expected: str) -> None:
    assert expected in refused(home, text)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://ca.example", ("https://ca.example:443", "/.well-known/est/fullcmc")),
        (
            "https://ca.example/.well-known/est/iot/fullcmc",
            ("https://ca.example:443", "/.well-known/est/iot/fullcmc"),
        ),
        ("http://[::1]:8080/cmc", ("http://[::1]:8080", "/cmc")),
    ],
)
def test_urls(url: str, parts: tuple[str, str]) -> None:
    assert split_cmc_url(url) == parts
