"""``holdfast config-schema``: the JSON Schema of the configuration file, for editors."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.host.config import schema_text


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("config-schema", help="print the configuration's JSON Schema")
    command.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Writes the schema to standard output."""
    print(schema_text())
    return 0
