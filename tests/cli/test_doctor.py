"""Each check of ``holdfast doctor``, with a real TPM: it is content with a healthy device, and finds
just what is broken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_NV,
    TPMS_NV_PUBLIC,
    TSS2_Exception,
)

import wire_pki as pki
from cli.healthy import ANCHOR, BEGIN, END, NAME, NOW, OWNER, Healthy, certificate_for, make, running
from holdfast.cli import doctor
from holdfast.cli.checks.files import _secrets
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.main import main
from holdfast.host.lock import StateLock
from holdfast.keys.tpm_templates import storage_root
from holdfast.life.record import Credential, CredentialState, DeviceRecord, Schedule, Trouble
from host.tls_server import Identity as ServerIdentity

pytestmark = pytest.mark.tpm
SRK, IDEVID, IDEVID_NV = 0x81000001, 0x81020000, 0x01C90200


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("healthy")
    make(home)
    return home


@pytest.fixture
def device(template: Path, tmp_path: Path) -> Iterator[Healthy]:
    with running(template, tmp_path / "device") as healthy:
        yield healthy


def examined(device: Healthy) -> dict[str, list[Finding]]:
    """What every check says, by its name."""
    found: dict[str, list[Finding]] = {}
    with Patient(device.config) as patient:
        for check in doctor.CHECKS:
            found.setdefault(check.name, []).extend(doctor.examine(check, patient))
    return found


def unwell(device: Healthy) -> dict[str, Finding]:
    """The first finding of each check that is not content; each says how it was seen and what to do."""
    bad = {
        name: next(f for f in findings if f.verdict in {Verdict.FAIL, Verdict.WARN})
        for name, findings in examined(device).items()
        if {f.verdict for f in findings} & {Verdict.FAIL, Verdict.WARN}
    }
    for finding in bad.values():
        assert finding.said
        assert finding.advice
        assert finding.seen
    return bad


def only(device: Healthy, name: str, verdict: Verdict = Verdict.FAIL) -> Finding:
    """The finding of the check *name*, which is the only one that is not content."""
    bad = unwell(device)
    assert list(bad) == [name]
    assert bad[name].verdict is verdict
    return bad[name]


# --- the whole -------------------------------------------------------------------------------------


def test_a_healthy_device_passes_every_check_and_is_not_changed(
    device: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(device.home)
    assert main(["--config", str(device.config), "doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["counts"] == {"ok": len(told["checks"]), "warn": 0, "fail": 0, "skipped": 0}
    assert {c["check"] for c in told["checks"]} == {c.name for c in doctor.CHECKS if c.store != "pkcs11"}
    assert all(c["seen"] and c["said"] for c in told["checks"])
    assert main(["--config", str(device.config), "doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{len(told['checks'])} ok"
    assert snapshot(device.home) == before


def snapshot(home: Path) -> dict[str, bytes]:
    """Every file but those of the TPM, which writes when it likes."""
    return {str(p): p.read_bytes() for p in home.rglob("*") if p.is_file() and "tpm" not in p.parts}


def test_a_failed_check_makes_the_exit_status_one_and_is_told_with_what_to_do(
    device: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    (device.state / "record").chmod(0o644)
    assert main(["--config", str(device.config), "doctor", "--verbose"]) == 1
    out = capsys.readouterr().out
    assert "fail" in out
    assert "do: chmod o= it." in out
    assert "seen: stat(2)" in out
    assert main(["--config", str(device.config), "doctor", "clock", "disk", "--json"]) == 0
    assert [c["check"] for c in json.loads(capsys.readouterr().out)["checks"]] == ["disk", "clock"]


def test_a_check_that_breaks_is_a_failed_check_with_its_name(
    device: Healthy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_patient: Patient) -> Iterator[Finding]:
        yield Finding(Verdict.OK, "so far")
        raise ZeroDivisionError("of no use")

    checks = (Check("broken", "nothing", broken), *doctor.CHECKS)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert main(["--config", str(device.config), "doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["checks"]
    mine = [c for c in told if c["check"] == "broken"]
    assert [c["verdict"] for c in mine] == ["ok", "fail"]
    assert "ZeroDivisionError: of no use" in mine[1]["said"]
    assert all(c["verdict"] == "ok" for c in told if c["check"] != "broken")


def test_an_unknown_check_is_refused_with_those_that_there_are(
    device: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(device.config), "doctor", "tmp"]) == 2
    assert "there are: config, state" in capsys.readouterr().err
    assert main(["--config", str(device.config), "doctor", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(doctor.CHECKS)


def test_a_check_for_another_kind_of_key_store_is_left_out(device: Healthy) -> None:
    def impossible(_patient: Patient) -> Iterator[Finding]:
        raise AssertionError

    with Patient(device.config) as patient:
        assert list(doctor.examine(Check("token", "a token", impossible, store="pkcs11"), patient)) == []


# --- configuration, record, disk -------------------------------------------------------------------


def test_config_every_fault_is_told_and_the_rest_waits_for_it(device: Healthy) -> None:
    device.write_config("clok: auto\nlimits: {connect-seconds: -1}\n")
    found = examined(device)
    assert [f.verdict for f in found["config"]] == [Verdict.FAIL] * 2
    assert "did you mean clock?" in found["config"][0].said
    rest = [f for name, findings in found.items() if name != "config" for f in findings]
    assert rest
    assert {(f.verdict, "config" in f.said) for f in rest} == {(Verdict.SKIPPED, True)}


def test_state_a_record_that_is_not_whole(device: Healthy) -> None:
    for name in ("record", "record.previous"):
        path = device.state / name
        path.write_bytes(path.read_bytes()[:-3])
    finding = only(device, "state")
    assert "state.corrupt" in finding.said
    assert (device.state / "record").exists()  # nothing was moved aside


def test_state_a_damaged_record_whose_previous_one_is_used(device: Healthy) -> None:
    device.remember(replace(device.record, schedule=Schedule(attempts=1)))
    path = device.state / "record"
    path.write_bytes(path.read_bytes()[:-3])
    assert "used record.previous" in only(device, "state", Verdict.WARN).said


def test_files_a_record_that_all_may_write_to_or_read(device: Healthy) -> None:
    (device.state / "record").chmod(0o622)
    assert "may write to it" in only(device, "files").said
    (device.state / "record").chmod(0o604)
    assert "may read it" in only(device, "files").said


def test_files_keys_and_secrets_that_all_may_read(device: Healthy) -> None:
    (device.state / "keys").chmod(0o755)
    assert only(device, "files").about == str(device.state / "keys")
    (device.state / "keys").chmod(0o700)
    device.config.chmod(0o666)
    assert only(device, "files").about == str(device.config)


def test_files_that_belong_to_another_user(device: Healthy, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.lstat

    def given_away(path: Path) -> os.stat_result:
        found = real(path)
        owner = 65534 if path == device.state / "keys" else found.st_uid
        return os.stat_result((*found[:4], owner, *found[5:]))

    monkeypatch.setattr(Path, "lstat", given_away)
    assert "belongs to user 65534" in only(device, "files").said


def filesystem(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Any]], None]) -> None:
    real = os.statvfs

    def changed(path: Any) -> os.statvfs_result:
        values = list(real(path))
        change(values)
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", changed)


def test_disk_full_nearly_full_without_inodes_and_read_only(
    device: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_favail, f_flag, f_namemax
    with monkeypatch.context() as patch:
        filesystem(patch, lambda v: v.__setitem__(4, 3))
        assert "are left" in only(device, "disk").said
    with monkeypatch.context() as patch:
        filesystem(patch, lambda v: v.__setitem__(4, (2 << 20) // v[1]))
        assert "only 2 MiB" in only(device, "disk", Verdict.WARN).said
    with monkeypatch.context() as patch:
        filesystem(patch, lambda v: (v.__setitem__(5, 1000), v.__setitem__(7, 2)))
        assert "2 files are left" in only(device, "disk").said
    with monkeypatch.context() as patch:
        filesystem(patch, lambda v: v.__setitem__(8, v[8] | os.ST_RDONLY))
        assert "read-only" in only(device, "disk").said


# --- the clock -------------------------------------------------------------------------------------


def test_clock_that_nobody_sets(device: Healthy) -> None:
    device.write_config("clock: untrusted\n")
    assert "believed only not to be before" in only(device, "clock", Verdict.WARN).said


def test_clock_that_stands_before_what_has_passed(device: Healthy) -> None:
    domain = replace(device.record.domain, floor=NOW + timedelta(days=20))
    device.remember(replace(device.record, domain=domain))
    bad = unwell(device)
    assert bad["clock"].verdict is Verdict.FAIL
    assert "has passed already" in bad["clock"].said
    assert set(bad) <= {"clock"}


# --- the TPM ---------------------------------------------------------------------------------------


def test_tpm_that_does_not_answer(device: Healthy) -> None:
    device.tpm.stop()
    found = examined(device)
    assert "key.tpm-unreachable" in found["tpm"][0].said
    assert {f.verdict for f in found["tpm"]} == {Verdict.FAIL}
    for name in ("tpm-lockout", "tpm-srk", "idevid", "keys"):
        assert [(f.verdict, f.said) for f in found[name]] == [
            (Verdict.SKIPPED, "the check tpm must be well first")
        ]
    assert {f.verdict for f in found["registrar"]} == {Verdict.OK}


def test_tpm_that_a_step_has_to_itself(device: Healthy) -> None:
    device.tpm.stop()
    with StateLock(device.state):
        assert [f.verdict for f in examined(device)["tpm"]] == [Verdict.SKIPPED]


def wrong_authorisation(tcti: str) -> None:
    """One failure that counts: an NV index without NO_DA, asked with the wrong value."""
    public = TPMS_NV_PUBLIC(
        nvIndex=0x01800100,
        nameAlg=TPM2_ALG.SHA256,
        attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE,
        authPolicy=b"",
        dataSize=8,
    )
    with ESAPI(tcti) as esapi:
        index = esapi.nv_define_space(b"right", TPM2B_NV_PUBLIC(nvPublic=public))
        esapi.tr_set_auth(index, b"wrong")
        with pytest.raises(TSS2_Exception):
            esapi.nv_write(index, b"12345678")
        esapi.nv_undefine_space(index)


def test_tpm_lockout_counts_and_then_locks_and_is_only_read(device: Healthy) -> None:
    wrong_authorisation(device.tpm.tcti)
    assert "1 of " in only(device, "tpm-lockout", Verdict.WARN).said
    assert "1 of " in only(device, "tpm-lockout", Verdict.WARN).said  # looking did not count
    with ESAPI(device.tpm.tcti) as esapi:
        esapi.dictionary_attack_parameters(1, 1000, 1000)
    assert "locked" in only(device, "tpm-lockout").said


def evict(tcti: str, handle: int) -> None:
    with ESAPI(tcti) as esapi:
        esapi.evict_control(ESYS_TR.OWNER, esapi.tr_from_tpmpublic(handle), handle)


def test_tpm_srk_that_is_gone_is_not_made_again_by_looking(device: Healthy) -> None:
    evict(device.tpm.tcti, SRK)
    for _ in range(2):
        found = examined(device)
        assert "was cleared" in found["tpm-srk"][0].said
        assert found["keys"][0].said == "the check tpm-srk must be well first"


def test_tpm_srk_that_is_another_one(device: Healthy) -> None:
    evict(device.tpm.tcti, SRK)
    other = storage_root()
    other.unique.ecc.x = b"\1" * 32
    with ESAPI(device.tpm.tcti) as esapi:
        public = TPM2B_PUBLIC(publicArea=other)
        esys, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), public, ESYS_TR.OWNER)
        esapi.evict_control(ESYS_TR.OWNER, esys, SRK)
        esapi.flush_context(esys)
    bad = unwell(device)
    assert "another than the one that made tpm2:blob:ldevid-1" in bad["tpm-srk"].said
    assert "key.parent-changed" in bad["keys"].said
    assert set(bad) == {"tpm-srk", "keys"}


def test_tpm_srk_that_is_no_storage_key(device: Healthy) -> None:
    device.write_config("clock: trusted\n")
    text = device.config.read_text().replace("keys: {", f"keys: {{srk: {IDEVID:#x}, ")
    device.config.write_text(text)
    assert "is no storage key" in unwell(device)["tpm-srk"].said


def test_tpm_srk_that_was_never_needed_is_no_fault(device: Healthy) -> None:
    evict(device.tpm.tcti, SRK)
    shutil.rmtree(device.state / "keys")
    device.remember(replace(device.record, identities=()))
    assert [f.verdict for f in examined(device)["tpm-srk"]] == [Verdict.OK]


# --- keys and certificates -------------------------------------------------------------------------


def test_keys_a_certificate_of_another_key(device: Healthy) -> None:
    device.hold(certificate_for(pki.new_key()))
    assert "is not the key of its certificate" in only(device, "keys").said


def test_keys_a_key_whose_file_is_gone_or_damaged(device: Healthy) -> None:
    path = next((device.state / "keys").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert "key.corrupt" in only(device, "keys").said
    path.unlink()
    assert "key.not-found" in only(device, "keys").said


def test_idevid_without_its_key_or_certificate(device: Healthy) -> None:
    with ESAPI(device.tpm.tcti) as esapi:
        esapi.nv_undefine_space(esapi.tr_from_tpmpublic(IDEVID_NV))
    assert "key.no-certificate" in only(device, "idevid").said
    evict(device.tpm.tcti, IDEVID)
    assert "key.not-found" in only(device, "idevid").said


def test_idevid_certificate_of_another_key(device: Healthy) -> None:
    stranger = pki.end_entity(pki.name("gateway", "GW-0001"), OWNER, not_before=BEGIN, not_after=END)
    (device.home / "other.pem").write_bytes(pki.pem(stranger.certificate))
    device.write_config("clock: trusted\nidevid: {certificate: {file: other.pem}}\n")
    assert "is not for the key" in only(device, "idevid").said


# --- trust -----------------------------------------------------------------------------------------


def test_anchors_of_the_manufacturer_that_ended_or_are_missing(device: Healthy) -> None:
    old = pki.ca("Maker", not_before=BEGIN - timedelta(days=9), not_after=BEGIN)
    path = device.home / "out" / "manufacturer-anchors.pem"
    path.write_bytes(pki.pem(old.certificate))
    finding = only(device, "anchors")
    assert (finding.about, "ended" in finding.said) == ("manufacturer", True)
    path.write_bytes(b"not PEM")
    assert only(device, "anchors").about == "manufacturer"


@pytest.mark.parametrize(("days", "verdict"), [(-1, Verdict.FAIL), (30, Verdict.WARN)])
def test_anchors_of_the_domain_that_ended_or_end_soon(device: Healthy, days: int, verdict: Verdict) -> None:
    short = pki.ca(
        "Owner", key=OWNER.key, not_before=BEGIN - timedelta(days=9), not_after=NOW + timedelta(days=days)
    )
    domain = replace(device.record.domain, anchors=(replace(ANCHOR, certificate=pki.der(short.certificate)),))
    device.remember(replace(device.record, domain=domain))
    finding = unwell(device)["anchors"]
    assert (finding.about, finding.verdict) == ("domain", verdict)


def test_registrar_that_does_not_answer(device: Healthy) -> None:
    device.server.__exit__()
    finding = only(device, "registrar")
    assert "transport.unreachable" in finding.said
    assert not finding.said.startswith("localhost")
    assert "holdfast doctor" not in finding.advice


def test_registrar_of_another_domain_is_seen_without_showing_it_a_certificate(
    template: Path, tmp_path: Path
) -> None:
    stranger = pki.ca("Stranger", not_before=BEGIN, not_after=END)
    shown = pki.end_entity(
        "registrar",
        stranger,
        san=pki.dns("localhost"),
        eku=[pki.SERVER_AUTH],
        not_before=BEGIN,
        not_after=END,
    )
    identity = ServerIdentity((shown.certificate, stranger.certificate), shown.key)  # type: ignore[arg-type]
    with running(template, tmp_path / "device", identity) as device:
        assert "not a server of our domain" in only(device, "registrar").said
        assert all(c.client_certificate is None for c in device.server.conversations)


def test_registrars_of_a_device_without_owner_are_asked_provisionally(device: Healthy) -> None:
    device.remember(replace(DeviceRecord(BEGIN)))
    found = examined(device)["registrar"]
    assert [(f.verdict, f.about) for f in found] == [(Verdict.OK, f"localhost:{device.server.port}")]
    assert "does not know its owner yet" in unwell(device)["renewal"].said


# --- renewal and deployment ------------------------------------------------------------------------


def test_renewal_of_a_certificate_that_ended(device: Healthy) -> None:
    leaf = certificate_for(pki.new_key(), begin=BEGIN - timedelta(days=9), end=BEGIN)
    device.hold(leaf, since=None)
    assert "ended at" in unwell(device)["renewal"].said


def test_renewal_that_nobody_takes(device: Healthy) -> None:
    entry = device.record.identity(NAME)
    late = replace(entry, schedule=Schedule(due=NOW - timedelta(days=2)))
    device.remember(device.record.with_identity(late))
    finding = only(device, "renewal")
    assert "nobody took it" in finding.said
    assert "holdfast step" in finding.advice


def test_renewal_that_is_planned_after_the_end(device: Healthy) -> None:
    entry = device.record.identity(NAME)
    trouble = Trouble("transport.dns", "no such name", "", "backoff", NOW)
    late = replace(entry, schedule=Schedule(due=END + timedelta(days=1), attempts=3, trouble=trouble))
    device.remember(device.record.with_identity(late))
    finding = only(device, "renewal")
    assert "its next attempt is at" in finding.said
    assert "transport.dns" in finding.advice


def test_renewal_that_has_little_time_left(device: Healthy) -> None:
    entry = device.record.identity(NAME)
    leaf = certificate_for(pki.new_key(), begin=NOW - timedelta(days=100), end=NOW + timedelta(days=5))
    credential = replace(entry.credential, chain=(pki.der(leaf),), since=None)
    waits = replace(entry, credential=credential, schedule=Schedule(due=NOW + timedelta(days=1), attempts=1))
    device.remember(device.record.with_identity(waits))
    finding = unwell(device)["renewal"]
    assert (finding.verdict, "should have been renewed" in finding.said) == (Verdict.WARN, True)


@pytest.mark.parametrize("state", [CredentialState.EXPIRED, CredentialState.REVOKED, CredentialState.NONE])
def test_renewal_of_an_identity_without_a_usable_certificate(device: Healthy, state: CredentialState) -> None:
    entry = device.record.identity(NAME)
    credential = Credential() if state is CredentialState.NONE else replace(entry.credential, state=state)
    device.remember(device.record.with_identity(replace(entry, credential=credential)))
    assert only(device, "renewal").about == NAME


def test_deployed_files_that_are_missing_or_of_another_generation(device: Healthy) -> None:
    place = device.state / "identities" / NAME
    (place / "current").unlink()
    assert "other programs have nothing" in only(device, "deployed").said
    (place / "current").symlink_to("generation-9")
    assert "other programs have generation 9" in only(device, "deployed").said
    shutil.rmtree(place)
    place.write_text("in the way")
    assert "credentials." in only(device, "deployed").said


@pytest.mark.parametrize("failed", [False, True])
def test_deployed_files_whose_hooks_did_not_all_run(device: Healthy, failed: bool) -> None:
    entry = device.record.identity(NAME)
    trouble = Trouble("deploy.hook", "nginx -s reload ended with 1", "", "backoff", NOW) if failed else None
    told = replace(entry.deployment, complete=False, schedule=Schedule(trouble=trouble))
    device.remember(device.record.with_identity(replace(entry, deployment=told)))
    finding = only(device, "deployed", Verdict.FAIL if failed else Verdict.WARN)
    assert ("nginx" in finding.said) == failed


def test_registrar_with_anchors_of_its_own_is_judged_by_these(template: Path, tmp_path: Path) -> None:
    other = pki.ca("Another CA", not_before=BEGIN, not_after=END)
    shown = pki.end_entity(
        "acme", other, san=pki.dns("localhost"), eku=[pki.SERVER_AUTH], not_before=BEGIN, not_after=END
    )
    identity = ServerIdentity((shown.certificate, other.certificate), shown.key)  # type: ignore[arg-type]
    with running(template, tmp_path / "device", identity) as device:
        (device.home / "acme.pem").write_bytes(pki.pem(other.certificate))
        url = f"https://localhost:{device.server.port}/directory"
        rung = f"acme: {{url: '{url}', anchors-file: acme.pem, challenges: [tls-alpn-01]}}"
        named = f"clock: trusted\nidentities: [{{name: {NAME}, protocols: [{{{rung}}}]}}]\n"
        device.write_config(named)
        assert [f.verdict for f in examined(device)["registrar"]] == [Verdict.OK], examined(device)
        device.write_config(named.replace(", anchors-file: acme.pem", ""))
        assert "not a server of our domain" in unwell(device)["registrar"].said


def test_files_of_every_kind_of_secret_are_looked_at(device: Healthy) -> None:
    secret = device.home / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    est = "{est: {username: gw, password-file: secret}}"
    cmp = "{cmp: {reference: gw, secret-file: secret}}"
    for rung in (est, cmp):
        device.write_config(f"clock: trusted\nidentities: [{{name: {NAME}, protocols: [{rung}]}}]\n")
        with Patient(device.config) as patient:
            assert list(_secrets(patient.settings)) == [secret]
        secret.chmod(0o660)
        assert "files" in unwell(device)
        secret.chmod(0o600)
