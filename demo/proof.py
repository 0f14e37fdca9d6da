"""``make proof-firstboot``: everything that the first boot must show, its figures, and one JSON line.

Each part runs, whatever became of the one before; the exit status is 0 only if all of them held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from bench import first_boot, tpm_commands
from demo import artefacts
from demo.__main__ import DemoError, perform

ROOT: Final = Path(__file__).resolve().parent.parent

PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "--no-header", "-o", "junit_family=xunit1")
"""xunit1: the newer form has no place for a test's properties."""

SUITES: Final[dict[str, tuple[str, ...]]] = {
    "BRSKI checklist, one violation a test": (
        "tests/wire/test_brski_verify.py",
        "tests/wire/test_brski_client.py",
    ),
    "EST client checks, one violation a test": (
        "tests/wire/test_est_client.py",
        "tests/wire/test_est_faults.py",
    ),
    "whole device against lying servers": (
        "tests/lifecycle/test_first_boot.py",
        "tests/lifecycle/test_lying_servers.py",
        "tests/lifecycle/test_bad_input.py",
    ),
    "foreign vectors (RFC 8995, RFC 7030, RFC 9908, PKITS, openssl)": (
        "tests/wire/test_brski_vectors.py",
        "tests/wire/test_est_csrattrs.py",
        "tests/wire/test_chain_pkits.py",
        "tests/wire/test_cms_foreign.py",
        "tests/wire/test_csr.py",
    ),
    "configuration errors name file, key path and line": ("tests/host/test_config.py",),
    "kill -9 at every commit point and around every message": ("tests/lifecycle/test_power_cuts.py",),
    "independent peers, both directions": ("tests/interop",),
}


class FailedError(Exception):
    """One part of the proof did not hold; the text says what was seen."""


def main() -> int:
    """Run all parts in order."""
    figures: dict[str, Any] = {}
    failures: list[str] = []
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("demonstration", demonstration),
        ("openssl reads every artefact", openssl),
        ("budgets", budgets),
        *((name, lambda paths=paths: suite(paths)) for name, paths in SUITES.items()),
        ("make demo from a clean clone", clean_clone),
    ]
    for name, part in parts:
        began = time.monotonic()
        print(f"--- {name}", flush=True)
        try:
            figures[name] = part()
        except (FailedError, DemoError, artefacts.ArtefactError, RuntimeError, OSError) as error:
            failures.append(name)
            figures[name] = {"failed": str(error)[-2000:]}
        print(f"    {json.dumps(figures[name])} ({time.monotonic() - began:.0f} s)", flush=True)
    for name in failures:
        print(f"FAILED: {name}")
    print(json.dumps({"proof": "firstboot", "ok": not failures, "figures": figures}))
    return 1 if failures else 0


def demonstration() -> dict[str, Any]:
    """The main job itself."""
    told = perform(lambda text: print(text, flush=True))
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


def openssl() -> dict[str, Any]:
    """The third party."""
    with tempfile.TemporaryDirectory() as directory:
        return dict(artefacts.check(Path(directory)))


def budgets() -> dict[str, Any]:
    """Counted, not timed."""
    with tempfile.TemporaryDirectory() as directory:
        rows = tpm_commands.measure(Path(directory))
    costs = first_boot.measure()
    print("\n".join([*tpm_commands.table(rows), *first_boot.table(costs)]), flush=True)
    over = [r.operation for r in rows if not r.ok]
    over += [c.name for c in costs if c.connections > first_boot.MOST_CONNECTIONS]
    if over:
        raise FailedError(f"over budget: {', '.join(over)}")
    return {
        **{c.name: c.figures() for c in costs},
        "tpm_commands": {r.operation: len(r.commands) for r in rows if r.budget is not None},
    }


def suite(paths: tuple[str, ...]) -> dict[str, Any]:
    """One group of tests. A skip is a failure here: a proof with holes is none."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        done = subprocess.run(
            [*PYTEST, f"--junitxml={report}", *paths],
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
    kill_points = [p.get("value", "0") for p in root.iter("property") if p.get("name") == "kill_points"]
    if kill_points:
        counted["kill_points"] = sum(map(int, kill_points))
    return counted


def clean_clone() -> dict[str, Any]:
    """What a newcomer does first."""
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "holdfast"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        done = subprocess.run(
            ["make", "--no-print-directory", "demo", "JSON=1"],
            cwd=clone,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise FailedError(done.stdout + done.stderr)
        try:
            told = json.loads(done.stdout)
        except ValueError as error:
            raise FailedError(f"not one JSON object on standard output: {done.stdout!r}") from error
    if not (told["ok"] and told["renewed"]):
        raise FailedError(done.stdout)
    return {"ok": True, "steps": len(told["steps"])}


if __name__ == "__main__":
    sys.exit(main())
