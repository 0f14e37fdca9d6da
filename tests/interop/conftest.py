"""Peers by fixture, and their versions at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interop.est_peers import DebianRoot, Domain, debian_root, peers_directory


@pytest.fixture
def domain() -> Domain:
    return Domain.create()


@pytest.fixture
def debian() -> Iterator[DebianRoot]:
    with debian_root() as place:
        yield place


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    versions = peers_directory() / "versions"
    if versions.exists():
        listed = ", ".join(" ".join(line.split("\t")) for line in versions.read_text().splitlines())
        terminalreporter.write_line(f"EST peers: {listed}")
