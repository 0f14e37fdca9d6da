"""``holdfast renew``: new certificates now, by the running agent or, without one, by a step of our own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.cli import progress, terminal
from holdfast.cli.asked import add_socket_option
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK, EXIT_OPERATOR
from holdfast.cli.owner import check_owner
from holdfast.cli.reasons import Reason, explain
from holdfast.cli.view import chosen, look
from holdfast.control_client import ControlClient, ControlError
from holdfast.host.config import IdentitySettings, Settings, load
from holdfast.worker.assemble import environment
from holdfast.worker.ports import Doing, Trace
from holdfast.worker.step import Step


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser(
        "renew", help="get new certificates now, whatever the age of the present ones"
    )
    command.add_argument("identity", nargs="?", metavar="IDENTITY", help="only this identity (default: all)")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_socket_option(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if all of them were renewed, 1 if an attempt is made again, 2 if a person must act."""
    settings = load(arguments.config)
    identities = chosen(settings, arguments.identity)
    try:
        _by_agent(arguments.socket, identities, quiet=arguments.json)
        by = "agent"
    except ControlError as error:
        if error.code != "control.unreachable":
            raise
        check_owner(settings.state_directory)
        _by_step(settings, identities, quiet=arguments.json)
        by = "step"
    view = look(arguments.config)
    reasons = explain(view.record, settings, identities, view.now)
    if arguments.json:
        told = {"ok": not any(r.trouble for r in reasons), "by": by, "reasons": [r.values() for r in reasons]}
        print(json.dumps(told))
    else:
        progress.clear()
        print("\n\n".join(terminal.paragraph(r.paragraph(view.now.now)) for r in reasons))
    return _status(reasons)


def _status(reasons: Sequence[Reason]) -> int:
    if any(r.stuck for r in reasons):
        return EXIT_OPERATOR
    return EXIT_FAILED if any(r.trouble for r in reasons) else EXIT_OK


def _by_agent(socket: Path, identities: Sequence[IdentitySettings], *, quiet: bool) -> None:
    """Raises ControlError; ``control.unreachable`` before anything was asked."""
    with ControlClient(socket) as agent:
        for identity in identities:
            for told in agent.renew(identity.name):
                if not quiet:
                    progress.doing(str(told.get("doing", "")), str(told.get("identity", "")))


def _by_step(settings: Settings, identities: Sequence[IdentitySettings], *, quiet: bool) -> None:
    """Raises what a step raises, StateError ``state.locked`` if another one is under way."""

    def announce(doing: Doing) -> None:
        if not quiet:
            progress.doing(doing.name, doing.identity)

    def observe(trace: Trace) -> None:
        if not quiet:
            progress.done(trace.name, trace.identity, trace.result, trace.ended - trace.began)

    with environment(settings, observe, announce) as env:
        Step(env, renew=frozenset(i.name for i in identities)).run()
