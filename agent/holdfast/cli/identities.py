"""``holdfast identities``: where other programs find each identity's files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdfast.host.config import load
from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("identities", help="the identities and the files that other programs use")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.add_argument("--names", action="store_true", help="only their names, one a line")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Lists configured identities, also those that have no credential yet."""
    settings = load(arguments.config)
    if arguments.names:
        print("\n".join(i.name for i in settings.identities))
        return 0
    record = StateStore(settings.state_directory).peek().record
    told = []
    for identity in settings.identities:
        files = CredentialFiles(
            identity.deploy_directory or settings.state_directory / "identities", identity.name
        )
        generation = files.current()
        entry = record.identity(identity.name) if record else None
        told.append(
            {
                "name": identity.name,
                "state": entry.credential.state.value if entry else "none",
                "key": (entry.credential.key or None) if entry else None,
                "directory": str(files.current_directory) if generation is not None else None,
            }
        )
    if arguments.json:
        print(json.dumps({"identities": told}))
    else:
        for line in told:
            print(f"{line['name']:<12} {line['state']:<8} {line['directory'] or '(no files yet)'}")
    return 0
