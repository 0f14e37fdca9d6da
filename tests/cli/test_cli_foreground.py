"""``holdfast run`` as a real process: it survives failing workers and ends when it is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli.main import EXIT_OPERATOR
from holdfast.control_client import ControlClient


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.ca("Maker").certificate.public_bytes(Encoding.PEM))
    config = tmp_path / "holdfast.yaml"
    config.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['127.0.0.1:1']\n"
        "manufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
    )
    return config


def command(config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "holdfast.cli.main", "--config", str(config), "run", *more]


@pytest.fixture
def process(config: Path) -> Iterator[subprocess.Popen[str]]:
    whole = command(config, "--socket", str(config.with_name("control")))
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_after_a_failed_step_and_ends_on_a_signal(
    process: subprocess.Popen[str], config: Path, number: signal.Signals
) -> None:
    assert process.stderr is not None
    said = ""
    while "key.tpm-unreachable" not in said:
        said = process.stderr.readline()
        assert said, "it ended"
    with ControlClient(config.with_name("control")) as client:
        status = client.get_status()
    assert status["state"] == "domain none"
    assert status["trouble"]["code"] == "key.tpm-unreachable"
    process.send_signal(number)
    assert process.wait(timeout=60) == 0


def test_a_broken_configuration_is_said_at_once(config: Path) -> None:
    config.write_text("registrars: 7\n")
    done = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_OPERATOR
    assert f"{config}:1: registrars" in done.stderr
