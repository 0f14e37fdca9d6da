"""``holdfast doctor``: every check, what it saw, and what to do about it. Changes nothing."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from holdfast.cli import progress, terminal
from holdfast.cli.checks import (
    anchors,
    clock,
    config,
    deployed,
    disk,
    files,
    idevid,
    keys,
    registrar,
    renewal,
    state,
    token,
    tpm,
    tpm_lockout,
    tpm_srk,
)
from holdfast.cli.checks.finding import Check, Finding, UnmetError, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK
from holdfast.cli.words import shown
from holdfast.wire.errors import ConfigError

CHECKS: Final[tuple[Check, ...]] = tuple(
    module.CHECK
    for module in (
        config,
        state,
        files,
        disk,
        clock,
        tpm,
        tpm_lockout,
        tpm_srk,
        token,
        idevid,
        keys,
        anchors,
        registrar,
        renewal,
        deployed,
    )
)

_COLOURS: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.SKIPPED: "dim"}


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("doctor", help="check this device from top to bottom, and say what to do")
    command.add_argument("check", nargs="*", metavar="CHECK", help="only these checks (default: all)")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.add_argument("-v", "--verbose", action="store_true", help="say of each check how it was seen")
    command.add_argument("--list", action="store_true", help="list the checks and end")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if no check failed (a warning is no failure), else 1."""
    checks = _chosen(arguments.check)
    if arguments.list:
        _list(checks, as_json=arguments.json)
        return EXIT_OK
    found: list[tuple[Check, Finding]] = []
    with Patient(arguments.config) as patient:
        for check in checks:
            if not arguments.json:
                progress.doing(f"looking at {check.looks_at}", "")
            for finding in examine(check, patient):
                found.append((check, finding))
                if not arguments.json:
                    _print(check, finding, verbose=arguments.verbose)
    counts = Counter(f.verdict for _, f in found)
    well = not counts[Verdict.FAIL]
    if arguments.json:
        told = {
            "ok": well,
            "counts": {v.value: counts[v] for v in Verdict},
            "checks": [values(*f) for f in found],
        }
        print(json.dumps(told))
    else:
        progress.clear()
        print(", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v]))
    return EXIT_OK if well else EXIT_FAILED


def examine(check: Check, patient: Patient) -> Iterator[Finding]:
    """What *check* finds. A check that breaks is a failed check, and none of the others suffers."""
    try:
        if check.store and check.store != patient.store:
            return
        yield from map(_told_here, check.look(patient))
    except UnmetError as unmet:
        yield Finding(Verdict.SKIPPED, f"the check {unmet.name} must be well first")
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks must still be made
        said = f"the check itself failed: {type(error).__name__}: {error}"
        yield Finding(Verdict.FAIL, said, "Please report it: this is a fault of Holdfast, or of this host.")


def _told_here(finding: Finding) -> Finding:
    """Without the advice to ask the doctor, and without saying twice what it is about."""
    return replace(
        finding,
        said=finding.said.removeprefix(f"{finding.about}: ") if finding.about else finding.said,
        advice=finding.advice.replace(": holdfast doctor", "."),
    )


def _chosen(names: Sequence[str]) -> tuple[Check, ...]:
    known = {check.name: check for check in CHECKS}
    if unknown := [n for n in names if n not in known]:
        raise ConfigError("cli.check", f"no check {unknown[0]}; there are: {', '.join(known)}")
    return tuple(check for check in CHECKS if not names or check.name in names)


def _list(checks: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"checks": [{"check": c.name, "looks_at": c.looks_at} for c in checks]}))
        return
    for check in checks:
        print(f"{check.name:<12} {check.looks_at}")


def values(check: Check, finding: Finding) -> dict[str, str]:
    """Ready for JSON."""
    return {
        "check": check.name,
        "about": finding.about,
        "verdict": finding.verdict.value,
        "said": finding.said,
        "advice": finding.advice,
        "seen": finding.seen,
    }


def _print(check: Check, finding: Finding, *, verbose: bool) -> None:
    progress.clear()
    verdict = terminal.coloured(f"{finding.verdict.value:<7}", _COLOURS[finding.verdict])
    about = f"{finding.about}: " if finding.about else ""
    lines = terminal.paragraph(shown(about + finding.said), indent=" " * 21).lstrip()
    print(f"{verdict} {check.name:<12} {lines}", flush=True)
    unwell = finding.verdict in {Verdict.FAIL, Verdict.WARN}
    if finding.advice and (unwell or verbose):
        print(terminal.paragraph(shown(f"do: {finding.advice}"), indent=" " * 21))
    if finding.seen and verbose:
        print(terminal.paragraph(shown(f"seen: {finding.seen}"), indent=" " * 21))
