"""What every proof shares: parts that each run, figures that are printed, one JSON line at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).resolve().parent.parent

PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "--no-header", "-o", "junit_family=xunit1")
"""xunit1: the newer form has no place for a test's properties."""

Part = Callable[[], Mapping[str, Any]]


class FailedError(Exception):
    """One part of the proof did not hold; the text says what was seen."""


def prove(name: str, parts: Sequence[tuple[str, Part]]) -> int:
    """Run all *parts*, whatever became of the one before; print each one's figures and the closing line.

    Returns the exit status: 0 only if all of them held. A part fails by raising; a bug of the proof itself
    is a failure as well, not a traceback that hides the other parts.
    """
    figures: dict[str, Any] = {}
    failures: list[str] = []
    for title, part in parts:
        began = time.monotonic()
        print(f"--- {title}", flush=True)
        try:
            figures[title] = dict(part())
        except Exception as error:  # noqa: BLE001 - see above
            failures.append(title)
            figures[title] = {"failed": f"{type(error).__name__}: {error}"[-2000:]}
        print(f"    {json.dumps(figures[title])} ({time.monotonic() - began:.0f} s)", flush=True)
    for title in failures:
        print(f"FAILED: {title}")
    print(json.dumps({"proof": name, "ok": not failures, "figures": figures}))
    return 1 if failures else 0


def suite(*paths: str, workers: bool = False, apart: bool = False) -> dict[str, Any]:
    """One group of tests, with every whole number that they recorded as a property, summed up by name.

    A skip is a failure here: a proof with holes is none. *workers*: use all cores, a module
    to each, or with *apart* any test to any. Raises FailedError.
    """
    spread = ("-n", "auto", "--dist", "worksteal" if apart else "loadscope") if workers else ()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        done = subprocess.run(
            [*PYTEST, *spread, f"--junitxml={report}", *paths],
            cwd=ROOT,
            env={**os.environ, "CI": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not report.exists():
            raise FailedError(done.stdout)
        root = ElementTree.parse(report).getroot()
    cases = list(root.iter("testcase"))
    skipped = sum(1 for c in cases for s in c.iter("skipped") if s.get("type") != "pytest.xfail")
    if skipped or not cases:
        raise FailedError(f"{skipped} of {len(cases)} tests were skipped")
    counted: dict[str, Any] = {"tests": len(cases)}
    for found in root.iter("property"):
        name, value = found.get("name", ""), found.get("value", "")
        if value.isdecimal():
            counted[name] = counted.get(name, 0) + int(value)
    return counted


def pytests(*paths: str, workers: bool = False, apart: bool = False) -> Part:
    """:func:`suite` as a part."""
    return lambda: suite(*paths, workers=workers, apart=apart)
