"""Commands that only look start without the TPM, TLS and schema libraries, and leave the disk as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki

HEAVY = {"tpm2_pytss", "jsonschema", "aiohttp", "ssl", "h11", "asn1crypto", "holdfast.worker.step"}
LOOK = """
import json, sys
from holdfast.cli.main import main
status = main()
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_bytes(pki.ca("Maker").certificate.public_bytes(Encoding.PEM))
    path = tmp_path / "holdfast.yaml"
    path.write_text(
        f"state-directory: {tmp_path / 'state'}\n"
        "registrars: ['r.example:443']\nmanufacturer: {anchors: anchors.pem}\n"
    )
    return path


@pytest.mark.parametrize("command", ["status", "why", "plan", "identities"])
def test_it_loads_nothing_heavy_and_writes_nothing(config: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, "--config", str(config), command],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
    )
    assert done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert loaded & HEAVY == set()
    assert sorted(p.name for p in config.parent.iterdir()) == ["anchors.pem", "holdfast.yaml"]
