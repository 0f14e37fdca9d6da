"""The line's commands as an operator types them, with the CA's key in a SoftHSM2 token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from holdfast_factory.line.plant import open_plant
from holdfast_factory.softhsm import SoftToken, make_token
from holdfast_factory.swtpm import Swtpm
from proofs.bench_floor import ChipMaker

pytestmark = [pytest.mark.tpm, pytest.mark.pkcs11]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("line")


@pytest.fixture(scope="module")
def token(home: Path) -> SoftToken:
    return make_token(home / "hsm", "factory", "73911")


class Shell:
    """Runs ``holdfast-factory`` in a process of its own."""

    def __init__(self, home: Path, token: SoftToken) -> None:
        self.home = home
        self._environment = {**os.environ, **token.environment}

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast_factory.cli", *words],
            cwd=self.home, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shell(home: Path, token: SoftToken) -> Shell:
    run = Shell(home, token)
    hsm = ("--token", token.uri, "--module", str(token.module), "--pin-file", str(token.pin_file))
    said = run("ca", "init", "works", "--masa-url", "masa.example:9443", *hsm)
    assert "CA keys in pkcs11:token=factory" in said
    run("ca", "init", "works", "--masa-url", "masa.example:9443", *hsm)  # again: nothing new
    return run


@pytest.fixture(scope="module")
def maker(home: Path) -> ChipMaker:
    return ChipMaker(home / "maker.pem")


@pytest.fixture
def chip(home: Path, maker: ChipMaker, request: pytest.FixtureRequest) -> Iterator[Swtpm]:
    maker.make(home / request.node.name)
    with Swtpm(home / request.node.name) as running:
        yield running


def _run(chip: Swtpm, *more: str) -> tuple[str, ...]:
    place = f"tcti:{chip.tcti}"
    words = ("run", "--factory", "works", "--station", "A", "--at", place, "--makers", "maker.pem")
    return (*words, "--units", "1", *more)


def test_the_ca_has_no_key_in_a_file(shell: Shell, home: Path) -> None:
    keys = {path.name for path in (home / "works").glob("*-key.pem")}
    assert keys == {"masa-key.pem", "line-signer-key.pem", "ca-signer-key.pem"}


def test_from_bare_board_to_audit(shell: Shell, chip: Swtpm, home: Path) -> None:
    told = json.loads(shell(*_run(chip, "--json", "--labels", "labels")).splitlines()[0])
    assert (told["ending"], told["serial"]) == ("sealed", "GW-000001")
    assert (home / "labels" / "GW-000001.svg").exists()
    story = json.loads(shell("verify", "GW-000001", "--factory", "works", "--json"))
    assert story["sealed"]
    assert set(story["certificates"]) == {"idevid", "iak"}
    assert "GW-000001" in shell("verify", story["certificates"]["idevid"]["serial"], "--factory", "works")
    assert "1 devices" in shell("export", "--factory", "works", "--out", "masa.cms")
    audited = shell("audit", "--factory", "works", "--checkpoint", "masa.cms", "--sign", "point.cms")
    assert "1 devices, 2 certificates" in audited
    found = json.loads(shell("audit", "--factory", "works", "--checkpoint", "point.cms", "--json"))
    assert found["checkpoints"] == 2


def test_openssl_verifies_what_the_hsm_signed(shell: Shell, chip: Swtpm, home: Path) -> None:
    serial = json.loads(shell(*_run(chip, "--json")).splitlines()[0])["serial"]
    nv = subprocess.run(
        ["tpm2_nvread", "0x01C90200"],
        env={**os.environ, "TPM2TOOLS_TCTI": chip.tcti},
        capture_output=True,
        check=True,
    ).stdout
    leaf = x509.load_der_x509_certificate(nv)
    assert [a.value for a in leaf.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)] == [serial]
    (home / "leaf.der").write_bytes(nv)
    works = home / "works"
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", works / "manufacturer-root.pem",
         "-untrusted", works / "idevid-ca.pem", home / "leaf.der"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_progress_bar_tells_of_each_unit(shell: Shell, chip: Swtpm) -> None:
    said = shell(*_run(chip))
    assert "sealed" in said
    assert "1/1" in said


def test_a_failed_unit_is_told_and_is_an_exit_status(shell: Shell, home: Path) -> None:
    with Swtpm(home / "bare") as chip:
        words = [*_run(chip, "--once"), "--json"]
        told = json.loads(shell(*words, status=1).splitlines()[0])
    assert (told["ending"], told["code"]) == ("failed", "ek.no-certificate")


def test_a_ca_elsewhere(shell: Shell, chip: Swtpm, home: Path) -> None:
    shell("ca", "line", "works", "--out", "afar")
    words = [w.replace("works", "afar") for w in _run(chip, "--once", "--json", "--numbers", "F-{:04d}")]
    assert json.loads(shell(*words).splitlines()[0])["ending"] == "waiting"
    assert "2 requests" in shell("ca", "ask", "--factory", "afar", "--out", "ask.cms")
    office = ("--ledger", f"sqlite:///{home}/office.db")
    shell("ca", "answer", "--factory", "works", *office, "--in", "ask.cms", "--out", "answer.cms")
    assert "2 certificates" in shell("ca", "take", "--factory", "afar", "--in", "answer.cms")
    assert "batch.replay" in shell("ca", "take", "--factory", "afar", "--in", "answer.cms", status=1)
    assert json.loads(shell(*words).splitlines()[0])["ending"] == "sealed"
    shell("audit", "--factory", "afar")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("audit", "--factory", "nowhere"), "factory.missing"),
        (("audit", "--factory", "works", "--ledger", "mysql://x/y"), "ledger.url"),
        (("verify", "GW-999999", "--factory", "works"), "ledger.unknown"),
        (("export", "--factory", "works", "--serial", "X", "--out", "x"), "ledger.unknown"),
        (("run", "--factory", "works", "--at", "usb:1"), "factory.place"),
        (("run", "--factory", "works", "--at", "tcti:x", "--numbers", "ä{}"), "factory.serial"),
        (("run", "--factory", "works", "--at", "tcti:x", "--makers", "none.pem"), "factory.makers"),
        (("ca", "init", "works", "--masa-url", "other.example"), "factory.other-product"),
        (("ca", "ask", "--factory", "works", "--out", "x"), "factory.nothing-waits"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, words: tuple[str, ...], said: str) -> None:
    assert said in shell(*words, status=1)


def test_another_pin_is_refused_and_tried_once(home: Path, token: SoftToken, shell: Shell) -> None:
    settings = home / "works" / "hsm.json"
    kept, wrong = settings.read_text(), home / "wrong-pin"
    wrong.write_text("0000")
    settings.write_text(kept.replace(str(token.pin_file), str(wrong)))
    try:
        assert "key.pin-wrong" in shell("audit", "--factory", "works", status=1)
    finally:
        settings.write_text(kept)


def test_the_key_in_the_hsm_is_that_of_the_certificate(home: Path, token: SoftToken, shell: Shell) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOFTHSM2_CONF", token.environment["SOFTHSM2_CONF"])
        with open_plant(home / "works") as plant:
            assert plant.issuing is not None
            assert plant.issuing.public_key() == plant.issuer.public_key()
