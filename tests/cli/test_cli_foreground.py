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


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "anchors.pem").write_bytes(pki.ca("Maker").certificate.public_bytes(Encoding.PEM))
    config = tmp_path / "holdfast.yaml"
    config.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['127.0.0.1:1']\n"
        "manufacturer: {anchors: anchors.pem}\n"
        "keys: {tcti: 'swtpm:host=127.0.0.1,port=1'}\n"
    )
    command = [sys.executable, "-m", "holdfast.cli.main", "--config", str(config), "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_after_a_failed_step_and_ends_on_a_signal(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("state: domain none")
    assert process.stdout.readline().startswith("next step in")
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
