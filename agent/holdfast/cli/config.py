"""``holdfast config``: check the configuration, or print its schema for an editor."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdfast.cli.exits import EXIT_OK
from holdfast.cli.words import listed
from holdfast.host.config import load, schema_text


def register(commands: Any) -> None:
    """Add the subcommand and its own two to argparse's collection of subparsers."""
    command = commands.add_parser("config", help="check the configuration, or print its schema")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="say every fault of the file, with line and key")
    check.add_argument("--json", action="store_true", help="one JSON object instead of text")
    check.set_defaults(run=run_check)
    schema = actions.add_parser("schema", help="print the JSON Schema, for editors")
    schema.set_defaults(run=run_schema)


def run_check(arguments: argparse.Namespace) -> int:
    """Exit status 2 if the file has a fault; each is told with its line."""
    settings = load(arguments.config)
    names = [i.name for i in settings.identities]
    if arguments.json:
        print(json.dumps({"ok": True, "file": str(arguments.config), "identities": names}))
    else:
        print(f"{arguments.config}: valid; identities: {listed(names)}")
    return EXIT_OK


def run_schema(_arguments: argparse.Namespace) -> int:
    """Writes the schema to standard output."""
    print(schema_text())
    return EXIT_OK
