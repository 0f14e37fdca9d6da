"""There is room for the next commit, and the file system can be written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient

NEEDED: Final = 1 << 20
"""Bytes that a commit and a deployment may need at the worst."""
PLENTY: Final = 16 << 20
INODES: Final = 32


def look(patient: Patient) -> Iterator[Finding]:
    """The file systems of the state and of each place that credentials are deployed to."""
    settings = patient.settings
    places = [
        settings.state_directory,
        *(i.deploy_directory for i in settings.identities if i.deploy_directory),
    ]
    for place in dict.fromkeys(places):
        yield _room(place)


def _room(place: Path) -> Finding:
    there = next((p for p in (place, *place.absolute().parents) if p.is_dir()), Path("/"))
    about, seen = str(place), f"statvfs(3) of {there}"
    room = os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    inodes = room.f_favail if room.f_files else INODES  # some file systems do not count them
    if room.f_flag & os.ST_RDONLY:
        return Finding(
            Verdict.FAIL, "its file system is mounted read-only", advice("state.read-only"), seen, about
        )
    if free < NEEDED or inodes < INODES:
        said = f"{free >> 10} KiB and {inodes} files are left"
        return Finding(Verdict.FAIL, said, advice("state.full"), seen, about)
    if free < PLENTY:
        return Finding(Verdict.WARN, f"only {free >> 20} MiB are left", advice("state.full"), seen, about)
    return Finding(Verdict.OK, f"{free >> 20} MiB are free, and it can be written to", "", seen, about)


CHECK: Final = Check("disk", "room on the disk, and the right to write to it", look)
