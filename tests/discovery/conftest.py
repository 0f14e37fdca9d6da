"""Links of our own, and a maker of devices that live on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from discovery.links import Net, need_namespaces
from discovery.parties import Maker


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    need_namespaces()


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as made:
        yield made


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.found(tmp_path_factory.mktemp("maker") / "works")
