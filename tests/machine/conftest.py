"""One town for all virtual gateways: making one is quick, booting it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from machine.gateway import Hardware
from machine.owner import Town, founded

FULL = os.environ.get("FULL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked ``full`` runs with FULL=1 only: it is left out, not skipped."""
    if not FULL:
        items[:] = [item for item in items if item.get_closest_marker("full") is None]


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture(scope="session")
def enrolled(town: Town) -> Hardware:
    """A gateway that made its first boot and was shut down: use a twin of it."""
    return first_boot(town, town.unpack(clock="trusted"))


@pytest.fixture(scope="session")
def enrolled_persistent(town: Town) -> Hardware:
    """The same with its keys in the TPM's own memory."""
    return first_boot(town, town.unpack(clock="trusted", storage="persistent"))


def first_boot(town: Town, hardware: Hardware) -> Hardware:
    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.shut_down()
    return hardware


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the timelines of boots."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "timeline":
                terminalreporter.write_sep("-", f"timeline of {report.nodeid}")
                terminalreporter.write_line(str(value))
