"""Owners and modes: nobody but the agent writes to its state, and nobody else reads its secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Final

from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient

MOST: Final = 2000
"""Entries of the state directory that are looked at."""


def look(patient: Patient) -> Iterator[Finding]:
    """Every file and directory below the state directory, the configuration, and the files of secrets."""
    home = patient.settings.state_directory
    seen = f"stat(2) of the configuration, the files of secrets and all below {home}"
    faults = list(_faults(patient, home))
    for path, said, how in faults:
        yield Finding(Verdict.FAIL, said, how, seen, str(path))
    if not faults:
        yield Finding(Verdict.OK, "owners and modes are as they should be", seen=seen)


Fault = tuple[Path, str, str]


def _faults(patient: Patient, home: Path) -> Iterator[Fault]:
    yield from _writable(patient.config)
    yield from _writable(patient.settings.manufacturer.anchors)
    for secret in dict.fromkeys(_secrets(patient.settings)):
        yield from _writable(secret)
        yield from _readable(secret)
    if home.is_dir():
        owner = home.stat().st_uid
        yield from _writable(home)
        for path in _below(home):
            yield from _owned(path, owner)
            yield from _writable(path)
            if path.parent == home and path.name.startswith("record"):
                yield from _readable(path)
        yield from _readable(home / "keys")


_PUBLIC: Final = frozenset({"anchors_file", "certificate_file", "chain_file", "metrics_file"})


def _secrets(settings: object) -> Iterator[Path]:
    """Every file that the settings name for a secret, in whatever part of them: any but those of certificates
    and numbers."""
    if isinstance(settings, tuple):
        for part in settings:
            yield from _secrets(part)
    elif is_dataclass(settings):
        for field in fields(settings):
            value = getattr(settings, field.name)
            if isinstance(value, Path):
                named = field.name == "file" or field.name.endswith("_file")
                yield from [value] if named and field.name not in _PUBLIC else []
            else:
                yield from _secrets(value)


def _below(home: Path) -> Iterator[Path]:
    found = 0
    for directory, names, files in os.walk(home):
        for name in (*names, *files):
            found += 1
            if found > MOST:
                return
            yield Path(directory, name)


def _mode(path: Path) -> int | None:
    """Mode of *path*; None where it is a link or not there."""
    try:
        found = path.lstat().st_mode
    except OSError:
        return None
    return None if stat.S_ISLNK(found) else found


def _writable(path: Path) -> Iterator[Fault]:
    mode = _mode(path)
    if mode is not None and mode & 0o022:
        yield path, f"users other than its owner may write to it ({stat.filemode(mode)})", "chmod go-w it."


def _readable(path: Path) -> Iterator[Fault]:
    mode = _mode(path)
    if mode is not None and mode & 0o007:
        yield path, f"every user may read it ({stat.filemode(mode)})", "chmod o= it."


def _owned(path: Path, owner: int) -> Iterator[Fault]:
    try:
        found = path.lstat().st_uid
    except OSError:
        return
    if found != owner:
        said = f"it belongs to user {found}, the state directory to user {owner}"
        yield path, said, f"chown it to user {owner}: holdfast was run as another user once."


CHECK: Final = Check("files", "owners and modes of state, keys and secrets", look)
