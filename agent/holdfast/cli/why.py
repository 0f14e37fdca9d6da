"""``holdfast why``: the reason for the present state, a paragraph a part. Touches no TPM and no network."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdfast.cli import terminal
from holdfast.cli.asked import add_socket_option, ask_instead
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK
from holdfast.cli.reasons import explain
from holdfast.cli.view import chosen, look
from holdfast.wire.errors import ConfigError, StateError


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("why", help="the reason for the present state, and what you can do")
    command.add_argument("identity", nargs="?", metavar="IDENTITY", help="only this identity (default: all)")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_socket_option(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if nothing has failed since it last worked, else 1."""
    try:
        view = look(arguments.config)
    except (ConfigError, StateError) as error:
        return ask_instead(arguments.socket, error, as_json=arguments.json)
    reasons = explain(view.record, view.settings, chosen(view.settings, arguments.identity), view.now)
    if arguments.json:
        print(json.dumps({"reasons": [r.values() for r in reasons], "note": view.note}))
    else:
        print("\n\n".join(terminal.paragraph(r.paragraph(view.now.now)) for r in reasons))
    return EXIT_FAILED if any(r.trouble for r in reasons) else EXIT_OK
