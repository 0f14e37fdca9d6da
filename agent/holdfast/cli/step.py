"""``holdfast step``: do what is due now, then exit with the next due time."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdfast.cli.report import step_report
from holdfast.host.config import load
from holdfast.wire.errors import ConfigError, Retry
from holdfast.worker.assemble import environment
from holdfast.worker.ports import Trace
from holdfast.worker.step import Step


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("step", help="do what is due now, then exit")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.add_argument(
        "--renew", action="append", default=[], metavar="IDENTITY", help="renew this one now (repeatable)"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 if something failed and is scheduled again, 2 if a person must act."""
    observe = _say if not arguments.json else _silent
    settings = load(arguments.config)
    known = {i.name for i in settings.identities}
    if unknown := sorted(set(arguments.renew) - known):
        raise ConfigError("cli.renew", f"no identity {unknown[0]}; there are: {', '.join(sorted(known))}")
    with environment(settings, observe) as env:
        report = Step(env, renew=frozenset(arguments.renew)).run()
    told = step_report(report)
    if arguments.json:
        print(json.dumps(told))
    else:
        if report.note:
            print(f"note: {report.note}")
        print(f"state: {told['state']}; next step due {told['due']}")
        if told["trouble"]:
            print(f"trouble: {told['trouble']['code']}: {told['trouble']['detail']}")
    if told["trouble"] is None:
        return 0
    return 2 if told["trouble"]["retry"] == Retry.OPERATOR.value else 1


def _say(trace: Trace) -> None:
    who = f" {trace.identity}" if trace.identity else ""
    print(f"{trace.name}{who}: {trace.result} ({(trace.ended - trace.began) * 1000:.0f} ms)", flush=True)


def _silent(_trace: Trace) -> None:
    """The JSON report holds the traces already."""
