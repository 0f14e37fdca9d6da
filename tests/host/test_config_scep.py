"""The SCEP rung of a configuration, and where its challenge comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.host.challenge import ChallengeError, read_challenge
from holdfast.host.config import ChallengeSettings, ScepSettings, load
from holdfast.host.config_formats import split_scep_url
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.scep.settings import Decryption, Legacy

PIN = "0f" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_text("PEM")
    (tmp_path / "once").write_text("s3cret-value\n")
    (tmp_path / "once").chmod(0o600)
    return tmp_path


def scep(home: Path, text: str, *, more: str = "", **options: Any) -> ScepSettings:
    path = home / "holdfast.yaml"
    path.write_text(
        "registrars: [registrar.example:8443]\nmanufacturer: {anchors: anchors.pem}\nidentities:\n"
        f"  - name: ldevid\n{more}    protocols:\n      - scep:\n"
        + "".join(f"          {line}\n" for line in text.splitlines())
    )
    (settings,) = load(path, **options).identities[0].protocols
    assert isinstance(settings, ScepSettings)
    return settings


def refused(home: Path, text: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        scep(home, text, **options)
    assert "s3cret" not in str(caught.value)
    return caught.value.detail


def test_every_setting_arrives(home: Path) -> None:
    assert scep(home, "url: http://ca.example\nkey: {algorithm: rsa2048}") == ScepSettings(
        "http://ca.example:80", key=KeyAlgorithm.RSA2048
    )
    text = f"""\
url: https://ca.example:8443/scep/gateways
name: mdm
ca-identifier: gateways
ca-fingerprint: {":".join(["0f"] * 32)}
ra-fingerprint: {"AB" * 32}
challenge-command: [/usr/bin/fetch, --once]
challenge-timeout-seconds: 5
decryption: transport-key
cipher: aes256
legacy: [3des, sha1, get]
poll-seconds: 60
challenge-at-renewal: true
"""
    assert scep(home, text) == ScepSettings(
        origin="https://ca.example:8443",
        name="mdm",
        path="/scep/gateways",
        ca="gateways",
        fingerprints=frozenset({bytes.fromhex(PIN), b"\xab" * 32}),
        challenge=ChallengeSettings(command=("/usr/bin/fetch", "--once"), timeout_seconds=5),
        legacy=frozenset(Legacy),
        decryption=Decryption.TRANSPORT_KEY,
        cipher="aes256",
        poll_seconds=60,
        challenge_at_renewal=True,
    )


def test_the_key_of_the_identity_counts(home: Path) -> None:
    assert scep(home, "url: http://ca.example/", more="    key: {algorithm: rsa3072}\n").key is None
    assert "a p256 key cannot decrypt" in refused(home, "url: http://ca.example/")
    assert "a p384 key cannot decrypt" in refused(
        home, "url: http://ca.example/\nkey: {algorithm: p384}", more="    key: {algorithm: rsa2048}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key: {algorithm: rsa2048}", "url: is missing"),
        ("url: ftp://ca.example/", "must start with http:// or https://"),
        ("url: http://ca.example/scep?x=1", "must have no query"),
        ("url: http://user:s3cret@ca.example/", "must hold no user and no password"),
        ("url: http://h/\nlegacy: [des]", "must be one of 3des, sha1, get"),
        ("url: http://h/\nca-fingerprint: abc", "64 hexadecimal digits"),
        ("url: http://h/\nchallenge-file: once\nchallenge-command: [/bin/x]", "excludes challenge-file"),
        ("url: http://h/\nchallenge-command: [x]", "must be a path from the root"),
        ("url: http://h/\nchallenge-file: gone", "No such file or directory"),
        ("url: http://h/\nchallenge-credential: gone", "no such credential"),
        ("url: http://h/\ndecryption: password", "needs a challenge"),
        ("url: http://h/\nchallenge: s3cret", "unknown key"),
    ],
)
def test_each_fault_is_named(home: Path, text: str, expected: str) -> None:
    assert expected in refused(home, text)


def test_a_transport_key_needs_room(home: Path) -> None:
    path = home / "holdfast.yaml"
    path.write_text(
        "registrars: [registrar.example:8443]\nmanufacturer: {anchors: anchors.pem}\n"
        "keys: {storage: persistent}\nidentities:\n  - name: ldevid\n"
        "    protocols: [{scep: {url: http://h/, decryption: transport-key}}]\n"
    )
    with pytest.raises(ConfigError, match=r"needs keys\.storage: blob"):
        load(path)


def test_an_open_challenge_file_is_refused(home: Path) -> None:
    (home / "once").chmod(0o644)
    assert "open to every user" in refused(home, "url: http://h/\nchallenge-file: once")


def test_a_credential_is_found_where_systemd_put_it(home: Path) -> None:
    (home / "credentials").mkdir()
    (home / "credentials" / "once").write_text("from systemd\n")
    text = "url: http://h/\nkey: {algorithm: rsa2048}\nchallenge-credential: once"
    settings = scep(home, text, credentials=home / "credentials")
    assert settings.challenge is not None
    assert read_challenge(settings.challenge) == "from systemd"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", ("http://h:80", "/cgi-bin/pkiclient.exe")),
        ("https://h/", ("https://h:443", "/cgi-bin/pkiclient.exe")),
        ("http://[::1]:8080/certsrv/mscep/mscep.dll", ("http://[::1]:8080", "/certsrv/mscep/mscep.dll")),
    ],
)
def test_urls(url: str, parts: tuple[str, str]) -> None:
    assert split_scep_url(url) == parts


# --- the challenge itself ---


def shell(command: str, seconds: float = 20) -> ChallengeSettings:
    return ChallengeSettings(command=("/bin/sh", "-c", command), timeout_seconds=seconds)


def test_a_command_prints_it() -> None:
    assert read_challenge(shell("printf 'one time'; echo noise >&2")) == "one time"
    assert read_challenge(shell("echo 'one time'")) == "one time"


def test_a_command_gets_no_input_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    assert read_challenge(shell('cat; echo "x$SECRET"')) == "x"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (shell("echo s3cret; exit 3"), "/bin/sh ended with status 3"),
        (shell("echo s3cret; sleep 600 & wait", 0.2), "/bin/sh did not end within 0.2 s"),
        (ChallengeSettings(command=("/nowhere/s3cret",)), "cannot be started: No such file"),
    ],
)
def test_a_command_that_fails_says_so_and_shows_nothing(settings: ChallengeSettings, expected: str) -> None:
    with pytest.raises(ChallengeError) as caught:
        read_challenge(settings)
    assert expected in caught.value.detail
    assert "echo" not in str(caught.value)


@pytest.mark.parametrize("output", ["printf ''", "printf '\\377'", "printf 'a\\nb'", "yes | head -c 300"])
def test_what_is_no_challenge(output: str) -> None:
    with pytest.raises(ConfigError, match=r"scep\.challenge"):
        read_challenge(shell(output))
