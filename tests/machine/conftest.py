"""One town for all virtual gateways: making one is quick, booting it is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.owner import Town, founded


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town
