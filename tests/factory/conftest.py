"""A factory and software TPMs on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast_factory.authority import Factory, Product, init_factory
from holdfast_factory.swtpm import Swtpm

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return init_factory(tmp_path / "factory", Product("masa.example:9443"), NOW)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    """A blank TPM without EK."""
    with Swtpm(tmp_path / "tpm") as running:
        yield running
