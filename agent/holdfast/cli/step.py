"""``holdfast step``: do what is due now, then exit with the next due time."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from holdfast.cli import progress
from holdfast.cli.owner import check_owner
from holdfast.cli.report import step_report
from holdfast.host.activation import runtime_directory, show_active
from holdfast.host.config import Settings, load
from holdfast.wire.errors import ConfigError, Retry
from holdfast.worker.assemble import credential_files, environment
from holdfast.worker.ports import Doing, Trace
from holdfast.worker.step import Step, StepReport
from holdfast.worker.telling import numbers_told, progress_told, settings_told, usable


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("step", help="do what is due now, then exit")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.add_argument(
        "--renew", action="append", default=[], metavar="IDENTITY", help="renew this one now (repeatable)"
    )
    command.add_argument(
        "--hasten", action="store_true", help="try again now what waits because the network was not there"
    )
    command.add_argument(
        "--stream",
        action="store_true",
        help="with --json: settings and progress first, for holdfastd",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 if something failed and is scheduled again, 2 if a person must act."""
    streams = arguments.json and arguments.stream
    if streams:
        # As any other way out: what the TPM holds for us is flushed, and the lock goes.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = load(arguments.config)
    known = {i.name for i in settings.identities}
    if unknown := sorted(set(arguments.renew) - known):
        raise ConfigError("cli.renew", f"no identity {unknown[0]}; there are: {', '.join(sorted(known))}")
    check_owner(settings.state_directory)
    if streams:
        _tell_settings(settings)
    observe: Callable[[Trace], None] = _silent if arguments.json else _say
    announce: Callable[[Doing], None] = _silent if arguments.json else _show_progress
    if streams:
        announce = _tell_progress
    with environment(settings, observe, announce) as env:
        report = Step(env, renew=frozenset(arguments.renew), hasten=arguments.hasten).run()
        runtime = runtime_directory(os.environ)
        if runtime is not None:
            show_active(runtime, usable(env, report.record))
        told = step_report(report)
        if streams:
            told["agent"] = numbers_told(env, report.record)
    if arguments.json:
        print(json.dumps(told))
    else:
        _show(report, told)
    if told["trouble"] is None:
        return 0
    return 2 if told["trouble"]["retry"] == Retry.OPERATOR.value else 1


def _show(report: StepReport, told: dict[str, Any]) -> None:
    progress.clear()
    if report.note:
        print(f"note: {report.note}")
    print(f"state: {told['state']}; next step due {told['due']}")
    if told["trouble"]:
        print(f"trouble: {told['trouble']['code']}: {told['trouble']['detail']}")


def _tell_settings(settings: Settings) -> None:
    files = [(i.name, str(credential_files(settings, i).current_directory)) for i in settings.identities]
    print(json.dumps(settings_told(settings, files)), flush=True)


def _tell_progress(doing: Doing) -> None:
    print(json.dumps(progress_told(doing)), flush=True)


def _say(trace: Trace) -> None:
    progress.done(trace.name, trace.identity, trace.result, trace.ended - trace.began)


def _show_progress(doing: Doing) -> None:
    progress.doing(doing.name, doing.identity)


def _silent(_: Trace | Doing) -> None:
    """The JSON report holds the traces already, and nobody waits for progress."""
