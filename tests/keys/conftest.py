"""A software TPM for each test, and a meter in front of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_meter import TpmMeter


@pytest.fixture
def swtpm(tmp_path: Path):
    with Swtpm(tmp_path / "tpm") as tpm:
        yield tpm


@pytest.fixture
def meter(swtpm: Swtpm):
    with TpmMeter(swtpm.port) as meter:
        yield meter
