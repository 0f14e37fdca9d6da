"""``holdfast revoke``: what it asks before, and what it refuses to do unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli.main import EXIT_FAILED, EXIT_OPERATOR, main
from holdfast.cli.revoke import REASONS
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import Credential, CredentialState, DeviceRecord, Domain, DomainState, Identity

CA = pki.ca("Owner Root")
LEAF = pki.end_entity("gateway", CA, eku=[pki.CLIENT_AUTH]).certificate
DER = LEAF.public_bytes(Encoding.DER)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(pki.ca("Maker").certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['127.0.0.1:1']\nmanufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
        "identities: [{name: ldevid}, {name: mqtt}]\n"
    )
    return path


def revoke(config: Path, *more: str) -> int:
    return main(["--config", str(config), "revoke", *more])


def test_several_identities_must_be_told_apart(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert revoke(config, "--yes") == EXIT_OPERATOR
    assert "ldevid, mqtt" in capsys.readouterr().err
    assert revoke(config, "--yes", "wifi") == EXIT_OPERATOR
    assert "no identity wifi" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_nobody_is_there_to_be_asked(
    config: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert revoke(config, "ldevid", *more) == EXIT_OPERATOR
    said = capsys.readouterr()
    if more:
        assert json.loads(said.out)["error"]["code"] == "revoke.unconfirmed"
    else:
        assert "--yes" in said.err


def test_a_reason_that_cannot_be_given(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        revoke(config, "ldevid", "--yes", "--reason", "ca-compromise")
    assert ended.value.code == EXIT_OPERATOR
    assert "key-compromise" in capsys.readouterr().err
    assert "certificate-hold" not in REASONS


@pytest.mark.parametrize("answer", ["n", "", "no", "maybe"])
def test_a_person_is_shown_what_is_meant_and_may_say_no(
    config: Path, answer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = Credential(CredentialState.ACTIVE, KeyRef("tpm2:blob:ldevid-3"), (DER,), 3)
    before = DeviceRecord(pki.BEGIN, Domain(DomainState.VOUCHED, "r.example:443"))
    StateStore(config.parent / "state").commit(before.with_identity(Identity("ldevid", credential)))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    assert revoke(config, "ldevid", "--reason", "superseded") == EXIT_FAILED
    said = capsys.readouterr().out
    assert f"{LEAF.serial_number:x}" in said
    assert "CN=gateway" in said
    assert "superseded" in said
    assert said.endswith("Nothing was done.\n")


def test_there_is_nothing_to_be_asked_about(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert revoke(config, "ldevid") == EXIT_OPERATOR
    assert "no certificate in use" in capsys.readouterr().err
