"""``holdfast run``: what ``holdfastd`` does, in the foreground, with the control socket where you say."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from holdfast.host.config import load


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("run", help="repeat steps in the foreground when they are due")
    command.add_argument("--socket", type=Path, metavar="PATH", help="answer control requests there")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Becomes the resident process, which is small, for this one has imported everything."""
    load(arguments.config)  # a broken configuration is said at once, not by a worker a minute later
    options = ["--config", str(arguments.config)]
    if arguments.socket is not None:
        options += ["--socket", str(arguments.socket)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "holdfast.daemon", *options])  # noqa: S606
