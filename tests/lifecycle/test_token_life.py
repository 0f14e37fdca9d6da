"""The whole job with the keys on a PKCS#11 token: the agent as its own process, SoftHSM2, foreign tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demo.__main__ import perform
from demo.application import hello
from demo.hardware import PIN, Token
from demo.stage import Stage
from holdfast_factory.softhsm import make_token
from holdfast_factory.swtpm import Swtpm
from keys.token_home import need

pytestmark = [pytest.mark.pkcs11, pytest.mark.timeout(300)]


@pytest.fixture
def stage() -> Iterator[Stage]:
    need("softhsm2-util:softhsm2")
    with Stage(keys="pkcs11") as stage:
        yield stage


def token_of(stage: Stage) -> Token:
    assert isinstance(stage.hardware, Token)
    return stage.hardware


def seen_by(stage: Stage, *command: str) -> str:
    """What a foreign tool says of the token."""
    token = token_of(stage).token
    done = subprocess.run(
        command, env={**os.environ, **token.environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def step(stage: Stage, *arguments: str) -> dict[str, Any]:
    run = stage.agent("step", "--json", *arguments)
    assert run.status == 0, run.output + run.errors
    return run.told


def current(stage: Stage) -> Path:
    return stage.state / "identities" / "ldevid" / "current"


LDEVID = "holdfast-ldevid-{}"


def test_the_demonstration_tells_the_same_for_token_and_tpm(record_property: Callable[..., None]) -> None:
    need("softhsm2-util:softhsm2")
    on_token, in_tpm = (perform(lambda _text: None, keys) for keys in ("pkcs11", "tpm"))
    for told in (on_token, in_tpm):
        assert (told["ok"], told["renewed"]) == (True, True)
    assert on_token.keys() == in_tpm.keys()
    assert on_token["ldevid"].keys() == in_tpm["ldevid"].keys()
    steps = [s["name"] for s in on_token["steps"]]
    assert steps == [s["name"] for s in in_tpm["steps"] if "flush the TPM" not in s["name"]]
    assert on_token["ldevid"]["key"].startswith("pkcs11:object=holdfast-ldevid-2;id=%68")
    record_property("round_trips", sum(s["round_trips"] for s in on_token["steps"]))


def test_foreign_tools_see_key_and_certificate_as_documented(stage: Stage) -> None:
    need("pkcs11-tool:opensc", "p11tool:gnutls-bin")
    step(stage)
    step(stage, "--renew", "ldevid")
    module = str(token_of(stage).token.module)
    label = LDEVID.format(2)
    listed = seen_by(stage, "pkcs11-tool", "--module", module, "--login", "--pin", PIN, "--list-objects")
    labels = [line.split("label:")[1].strip() for line in listed.splitlines() if "label:" in line]
    assert sorted(labels) == sorted(["idevid"] * 3 + [label] * 3), listed
    ids = [line.split("ID:")[1].strip() for line in listed.splitlines() if "ID:" in line]
    assert sorted(ids) == sorted([b"idevid".hex()] * 3 + [label.encode().hex()] * 3)
    assert "never extractable" in listed
    shown = seen_by(
        stage,
        "p11tool",
        f"--provider={module}",
        f"--set-pin={PIN}",
        "--login",
        "--list-all",
        "pkcs11:token=gateway",
    )
    uri = (current(stage) / "key.uri").read_text().strip()
    wanted = uri.removesuffix(";type=private").partition(";")[2]
    assert {k.split(";")[0] for k in wanted.split("pkcs11:")} == {f"object={label}"}
    for kind in ("private", "public", "cert"):
        lines = [line for line in shown.splitlines() if f"object={label}" in line and f"type={kind}" in line]
        assert len(lines) == 1, shown
        assert "".join(f"%{o:02X}" for o in label.encode()) in lines[0].upper()


def test_the_deployed_files_lead_to_the_key(stage: Stage) -> None:
    step(stage)
    label = LDEVID.format(1)
    encoded = "".join(f"%{o:02X}" for o in label.encode())
    uri = f"pkcs11:token=gateway;object={label};id={encoded};type=private"
    assert (current(stage) / "key.uri").read_text() == uri + "\n"
    assert (current(stage) / "key.pem").read_bytes().startswith(b"-----BEGIN PKCS#11 PROVIDER URI-----\n")
    # The certificate on the token is the deployed one, and it goes with its key.
    module = str(token_of(stage).token.module)
    read = ["pkcs11-tool", "--module", module, "--read-object", "--type", "cert", "--label", label]
    token = token_of(stage).token
    environment = {**os.environ, **token.environment}
    der = subprocess.run(read, env=environment, capture_output=True, check=True).stdout
    leaf = x509.load_pem_x509_certificate((current(stage) / "chain.pem").read_bytes())
    assert der == leaf.public_bytes(Encoding.DER)
    step(stage, "--renew", "ldevid")
    assert (
        (current(stage) / "key.uri").read_text().startswith("pkcs11:token=gateway;object=holdfast-ldevid-2;")
    )
    gone = subprocess.run(read, env=environment, capture_output=True, check=False)
    assert gone.returncode != 0


def test_a_wrong_pin_ends_the_step_and_is_tried_once(stage: Stage) -> None:
    pin_file = token_of(stage).token.pin_file
    pin_file.write_text("not-the-pin")
    for code in ("key.pin-wrong", "key.pin-refused", "key.pin-refused"):
        run = stage.agent("step", "--json")
        assert run.status != 0
        assert code in run.output + run.errors
        assert "not-the-pin" not in run.output + run.errors
    doctor = stage.agent("doctor", "--json", "token")
    (found,) = json.loads(doctor.output)["checks"]
    assert (found["verdict"], "key.pin-refused" in found["said"]) == ("fail", True)
    pin_file.write_text(PIN)
    step(stage)
    assert "HF-2027-000042" in hello(stage.config, stage.servers.addresses["application"])
    assert not (stage.state / "keys" / "pin-refused.json").exists()


def test_the_doctor_is_content_with_token_and_keys(stage: Stage) -> None:
    step(stage)
    run = stage.agent("doctor", "--json", "token", "idevid", "keys")
    verdicts = {f["check"]: f["verdict"] for f in json.loads(run.output)["checks"]}
    assert verdicts == {"token": "ok", "idevid": "ok", "keys": "ok"}, run.output


def test_the_doctor_sees_a_pin_that_others_may_change(stage: Stage) -> None:
    step(stage)
    pin_file = token_of(stage).token.pin_file
    pin_file.chmod(0o620)
    run = stage.agent("doctor", "--json", "files")
    told = [f for f in json.loads(run.output)["checks"] if f["verdict"] == "fail"]
    assert {f["about"] for f in told} == {str(pin_file)}


def test_a_lost_record_leaves_no_orphan_on_the_token_and_spares_the_makers_key(stage: Stage) -> None:
    step(stage)
    step(stage, "--renew", "ldevid")  # generations start anew after the loss, and nothing replaces the second
    lost = list(stage.state.glob("record*"))
    assert lost
    for file in lost:
        file.unlink()
    step(stage)
    listed = seen_by(
        stage, "pkcs11-tool", "--module", str(token_of(stage).token.module), "--login", "--pin", PIN, "-O"
    )
    labels = [line.split("label:")[1].strip() for line in listed.splitlines() if "label:" in line]
    assert sorted(labels) == sorted(["idevid"] * 3 + [LDEVID.format(1)] * 3), listed


WITHOUT = """\
import sys
sys.modules[sys.argv.pop(1)] = None
from holdfast.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(("keys", "absent"), [("pkcs11", "tpm2_pytss"), ("tpm", "pkcs11")])
def test_each_kind_of_hardware_needs_its_own_library_only(keys: str, absent: str) -> None:
    need("softhsm2-util:softhsm2")
    with Stage(keys=keys) as stage:
        for command in (("step", "--json"), ("doctor", "idevid", "keys"), ("status",)):
            done = subprocess.run(
                [sys.executable, "-c", WITHOUT, absent, "--config", str(stage.config), *command],
                env={**os.environ, "TSS2_LOG": "all+NONE"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_idevid_in_the_tpm_and_our_keys_on_a_token(tmp_path: Path) -> None:
    need("softhsm2-util:softhsm2")
    token = make_token(tmp_path / "token", "gateway", PIN)
    token.see()
    with Stage(keys="tpm") as stage:
        section = f"  pkcs11: {{uri: '{token.uri}', module: {token.module}, pin-file: {token.pin_file}}}\n"
        stage.config.write_text(stage.config.read_text().replace("keys:\n", f"keys:\n{section}", 1))
        step(stage)
        step(stage, "--renew", "ldevid")
        assert "object=holdfast-ldevid-2;" in (current(stage) / "key.uri").read_text()
        run = stage.agent("doctor", "--json", "token", "idevid", "keys")
        assert {f["verdict"] for f in json.loads(run.output)["checks"]} == {"ok"}, run.output


def test_the_idevid_on_a_token_and_our_keys_in_the_tpm(stage: Stage, tmp_path: Path) -> None:
    token = token_of(stage).token
    with Swtpm(tmp_path / "tpm") as tpm:
        text = stage.config.read_text()
        begin, end = text.index("keys:\n"), text.index("idevid:\n")
        more = f"  module: {token.module}\n  pin-file: {token.pin_file}\n"
        text = text[:begin] + f"keys:\n  tcti: '{tpm.tcti}'\n" + text[end:]
        stage.config.write_text(text.replace("idevid:\n", f"idevid:\n{more}", 1))
        step(stage)
        assert (current(stage) / "key.pem").read_text().startswith("-----BEGIN TSS2 PRIVATE KEY-----")
        assert not (current(stage) / "key.uri").exists()
        run = stage.agent("doctor", "--json", "tpm", "idevid", "keys")
        assert {f["verdict"] for f in json.loads(run.output)["checks"]} == {"ok"}, run.output
