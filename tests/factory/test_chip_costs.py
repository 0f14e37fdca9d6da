"""The table in docs/factory-chip.md is what a chip counts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import wire_pki as pki
from factory.chips import MODEL, SERIAL
from factory.test_tpm_unit import CHALLENGE, issued
from holdfast_factory.authority import Authority
from holdfast_factory.chips.ek_issue import issue
from holdfast_factory.chips.links import AGAIN, TctiLink
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.tpm_meter import TpmMeter
from holdfast_factory.tpm_unit import TpmUnit

pytestmark = pytest.mark.tpm
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "factory-chip.md"
ROW = re.compile(r"^\| ([a-z ]+) \| ((?:[A-Z][A-Za-z_]+ ?)+) \| (\d+) \|$", re.MULTILINE)
Table = dict[str, tuple[tuple[str, ...], int]]


def documented() -> Table:
    return {
        step: (tuple(names.split()), int(trips)) for step, names, trips in ROW.findall(DOCUMENT.read_text())
    }


def counted(chip: Swtpm) -> Table:
    found: Table = {}
    with TpmMeter(chip.port) as meter:
        link = TctiLink(meter.tcti)
        trips = 0

        def note(step: str) -> None:
            nonlocal trips
            names = tuple(each.name for each in meter.take() if each.rc not in AGAIN)
            found[step] = (names, link.round_trips - trips)
            trips = link.round_trips

        with TpmUnit(link, "bench") as unit:
            endorsement = unit.endorsement()
            note("endorsement")
            shown = unit.keys(MODEL, SERIAL)
            note("keys")
            examiner = TpmExaminer(())
            proved = examiner.keys(shown, endorsement, MODEL, SERIAL)
            unit.activate(examiner.seal(proved, endorsement, os.urandom)[0])
            note("activate")
            unit.install(issued(shown.idevid, shown.iak))
            note("install")
            unit.read_back(CHALLENGE)
            note("read back")
            unit.lock()
            note("lock")
        assert meter.take() == (), "nothing is left to flush"
    return found


def test_table_is_what_is_counted(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ca = pki.ca("EK CA")
    authority = Authority(ca.certificate, ca.key)  # type: ignore[arg-type]
    with Swtpm(tmp_path / "chip") as chip:
        made = TpmUnit(
            TctiLink(chip.tcti), "maker", endorser=lambda ek, said: issue(authority, ek, said, now)
        )
        with made as unit:
            unit.endorsement()
        found = counted(chip)
    assert found == documented()
    record_property("commands", sum(len(names) for names, _ in found.values()))
    record_property("round_trips", sum(trips for _, trips in found.values()))
