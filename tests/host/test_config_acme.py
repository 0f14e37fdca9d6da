"""The ``acme`` block of a ladder: what may stand there, and what is told of what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.host.config import AcmeSettings, load
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import KeyAlgorithm

URL = "https://ca.example/acme/directory"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("anchors.pem", "chain.pem"):
        (tmp_path / name).write_text("x")
    for name in ("mac", "tsig"):
        (tmp_path / name).write_text("c2VjcmV0")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def acme(home: Path, text: str, name: str = "ldevid") -> AcmeSettings:
    lines = "\n".join(f"          {line}" for line in text.splitlines())
    (home / "holdfast.yaml").write_text(
        f"registrars: ['a:1']\nmanufacturer: {{anchors: {home / 'anchors.pem'}}}\nidentities:\n"
        f"  - name: {name}\n    protocols:\n      - acme:\n{lines}\n"
    )
    (found,) = load(home / "holdfast.yaml").identities[0].protocols
    assert isinstance(found, AcmeSettings)
    return found


def test_the_least_is_a_server_and_an_attestation_ca(home: Path) -> None:
    found = acme(home, f"url: {URL}\nattestation: {{ca-url: https://attest.example}}")
    assert (found.origin, found.directory) == ("https://ca.example:443", "/acme/directory")
    assert found.challenges == ("device-attest-01",)
    assert found.attestation.algorithm is KeyAlgorithm.P256
    assert found.external_account is None


def test_everything_can_be_said(home: Path) -> None:
    found = acme(
        home,
        f"""url: {URL}
name: public
anchors-file: anchors.pem
challenges: [dns-01, http-01]
contacts: ["mailto:ops@example.com"]
external-account: kid-1
external-account-file: mac
profile: short
alternate-chain: Some Root
use: server
http-port: 8080
dns: {{server: 192.0.2.1, zone: example.com, key-name: k, key-file: tsig}}
attestation: {{chain-file: chain.pem, key: rsa2048, device-in-csr: false}}""",
    )
    assert found.for_server
    assert found.external_account is not None
    assert found.external_account.secret == b"secret"
    assert "c2VjcmV0" not in repr(found)
    assert found.dns is not None
    assert found.dns.key_file == home / "tsig"
    assert found.attestation.chain_file == home / "chain.pem"


FAULTS = {
    "no attestation": (f"url: {URL}", "needs attestation"),
    "two of them": (
        f"url: {URL}\nattestation: {{ca-url: https://a.example, chain-file: chain.pem}}",
        "excludes ca-url",
    ),
    "plain http": ("url: http://ca.example/dir\nchallenges: [http-01]", "must start with https://"),
    "no path": ("url: https://ca.example\nchallenges: [http-01]", "needs the path of the directory"),
    "dns without a way": (f"url: {URL}\nchallenges: [dns-01]", "needs dns"),
    "two ways to dns": (
        f"url: {URL}\nchallenges: [dns-01]\ndns: {{server: 192.0.2.1, zone: z, command: [/bin/x]}}",
        "exactly one of server, command",
    ),
    "a zone is missing": (f"url: {URL}\nchallenges: [dns-01]\ndns: {{server: 192.0.2.1}}", "needs a zone"),
    "half a key": (
        f"url: {URL}\nchallenges: [dns-01]\ndns: {{server: 192.0.2.1, zone: z, key-name: k}}",
        "go together",
    ),
    "a relative command": (
        f"url: {URL}\nchallenges: [dns-01]\ndns: {{command: [hook]}}",
        "must be a path from the root",
    ),
    "an account without its key": (
        f"url: {URL}\nchallenges: [http-01]\nexternal-account: k",
        "needs a file or credential",
    ),
    "a key without its account": (
        f"url: {URL}\nchallenges: [http-01]\nexternal-account-file: mac",
        "needs an external-account",
    ),
    "an unknown challenge": (f"url: {URL}\nchallenges: [dns-02]", "did you mean dns-01"),
    "a file that is not there": (
        f"url: {URL}\nchallenges: [http-01]\nanchors-file: gone.pem",
        "No such file",
    ),
}


@pytest.mark.parametrize(("text", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_told_with_their_place(home: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        acme(home, text)
    assert said in caught.value.detail
    assert "identities[0].protocols[0].acme" in caught.value.detail
    assert "holdfast.yaml:" in caught.value.detail


def test_a_name_that_leaves_no_room_for_the_account(home: Path) -> None:
    with pytest.raises(ConfigError, match="at most 24 characters"):
        acme(home, f"url: {URL}\nchallenges: [http-01]", name="a" * 25)
