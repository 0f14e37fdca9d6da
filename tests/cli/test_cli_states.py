"""Every subcommand where no TPM is needed: fresh, waiting, active, in trouble, misconfigured."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli.main import EXIT_FAILED, EXIT_LOCKED, EXIT_OK, EXIT_OPERATOR, main
from holdfast.host.lock import StateLock
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import (
    Anchor,
    Credential,
    CredentialState,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Provenance,
    Schedule,
    Transaction,
    TransactionState,
    Trouble,
)
from holdfast.wire.model import Purpose

T0 = datetime(2027, 1, 1, tzinfo=UTC)
CA = pki.ca("Owner Root")
LEAF = pki.end_entity("gateway", CA, eku=[pki.CLIENT_AUTH])
ANCHOR = Anchor(CA.certificate.public_bytes(Encoding.DER), Provenance.CACERTS, T0)
VOUCHED = Domain(DomainState.VOUCHED, "registrar.example:443", anchors=(ANCHOR,))
ACTIVE = Credential(
    CredentialState.ACTIVE, KeyRef("tpm2:blob:ldevid-3"), (LEAF.certificate.public_bytes(Encoding.DER),), 3
)
TROUBLE = Trouble("est.key-mismatch", "no certificate is for our key", "RFC 7030 §4.2.3", "backoff", T0)
NOTHING, IDLE = Credential(), Transaction()
SECRET = b"do-not-print-me"

Holdfast = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    password = tmp_path / "password"
    password.write_bytes(SECRET)
    password.chmod(0o600)
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['registrar.example:443']\n"
        "manufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
        "identities:\n  - name: ldevid\n    protocols: [{est: {username: gw, password-file: password}}]\n"
    )
    return path


@pytest.fixture
def holdfast(config: Path, capsys: pytest.CaptureFixture[str]) -> Holdfast:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["--config", str(config), *arguments])
        said = capsys.readouterr()
        assert SECRET.decode() not in said.out + said.err
        return status, said.out, said.err

    return run


def remember(config: Path, record: DeviceRecord) -> None:
    StateStore(config.parent / "state").commit(record)


def entry(credential: Credential = NOTHING, transaction: Transaction = IDLE, **more: Any) -> DeviceRecord:
    return DeviceRecord(T0, VOUCHED).with_identity(Identity("ldevid", credential, transaction, **more))


def test_a_fresh_device(holdfast: Holdfast) -> None:
    status, out, _ = holdfast("status")
    assert status == EXIT_FAILED
    assert out.split()[:2] == ["domain", "none"]
    status, out, _ = holdfast("status", "--json")
    told = json.loads(out)
    assert (told["domain"]["state"], told["identities"], told["trouble"]) == ("none", [], None)


def test_an_active_device(holdfast: Holdfast, config: Path) -> None:
    remember(config, entry(ACTIVE))
    status, out, _ = holdfast("status")
    assert status == EXIT_OK
    for word in (
        "vouched by registrar.example:443",
        "active, generation 3",
        "tpm2:blob:ldevid-3",
        "Owner Root",
    ):
        assert word in out
    status, out, _ = holdfast("status", "--json")
    credential = json.loads(out)["identities"][0]["credential"]
    assert credential["serial"] == f"{LEAF.certificate.serial_number:x}"
    assert credential["subject"] == LEAF.certificate.subject.rfc4514_string()


@pytest.mark.parametrize("state", [s for s in TransactionState if s is not TransactionState.NONE])
def test_what_is_under_way(holdfast: Holdfast, config: Path, state: TransactionState) -> None:
    under_way = Transaction(state, Purpose.REKEY, "est", KeyRef("tpm2:blob:ldevid-4"), id="ab")
    remember(config, entry(ACTIVE, under_way))
    status, out, _ = holdfast("status")
    assert status == EXIT_OK
    assert f"under way rekey: {state.value}" in out


def test_trouble_is_told_with_its_clause_and_the_next_attempt(holdfast: Holdfast, config: Path) -> None:
    due = T0 + timedelta(minutes=4)
    remember(config, entry(schedule=Schedule(due, 3, TROUBLE)))
    status, out, _ = holdfast("status")
    assert status == EXIT_FAILED
    assert "est.key-mismatch: no certificate is for our key (RFC 7030 §4.2.3)" in out
    assert "2027-01-01T00:04:00Z after 3 failures" in out


def test_a_bootstrap_that_waits_says_until_when(holdfast: Holdfast, config: Path) -> None:
    remember(config, DeviceRecord(T0, schedule=Schedule(T0 + timedelta(minutes=4), 2, TROUBLE)))
    _, out, _ = holdfast("status")
    assert "2027-01-01T00:04:00Z after 2 failures" in out


def test_a_damaged_record_is_said_and_the_previous_one_used(holdfast: Holdfast, config: Path) -> None:
    remember(config, entry())
    remember(config, entry(ACTIVE))
    record = config.parent / "state" / "record"
    record.write_bytes(record.read_bytes()[:-3])
    status, out, _ = holdfast("status")
    assert status == EXIT_FAILED
    assert "note        used record.previous" in out


def test_a_step_without_a_tpm_is_for_another_time(holdfast: Holdfast, config: Path) -> None:
    status, out, _ = holdfast("step", "--json")
    told = json.loads(out)
    assert status == EXIT_FAILED
    assert told["trouble"]["code"] == "key.tpm-unreachable"
    assert told["due"] > told["trouble"]["at"]
    _, out, _ = holdfast("status")
    assert "key.tpm-unreachable" in out


def test_one_step_at_a_time(holdfast: Holdfast, config: Path) -> None:
    with StateLock(config.parent / "state"):
        status, _, err = holdfast("step")
        assert status == EXIT_LOCKED
        assert "state.locked" in err
        status, out, _ = holdfast("step", "--json")
        assert (status, json.loads(out)["error"]["code"]) == (EXIT_LOCKED, "state.locked")


def test_only_identities_that_exist_are_renewed(holdfast: Holdfast) -> None:
    status, _, err = holdfast("step", "--renew", "vpn")
    assert status == EXIT_OPERATOR
    assert "no identity vpn; there are: ldevid" in err


def test_configuration_errors_name_file_line_and_key(holdfast: Holdfast, config: Path) -> None:
    config.write_text(config.read_text() + "clok: auto\nlimits: {connect-seconds: -1}\n")
    status, _, err = holdfast("status")
    assert status == EXIT_OPERATOR
    assert f"{config}:8: clok: unknown key; did you mean clock?" in err
    assert f"{config}:9: limits.connect-seconds" in err


def test_identities_without_and_with_files(holdfast: Holdfast, config: Path) -> None:
    _, out, _ = holdfast("identities")
    assert "(no files yet)" in out
    remember(config, entry(ACTIVE))
    _, out, _ = holdfast("identities", "--json")
    told = json.loads(out)["identities"]
    assert told == [{"name": "ldevid", "state": "active", "key": "tpm2:blob:ldevid-3", "directory": None}]


def test_the_schema_is_one(holdfast: Holdfast) -> None:
    _, out, _ = holdfast("config", "schema")
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"registrars": "no list"}, schema)
