"""``holdfast``: the entry point, its options and its exit statuses."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast.cli import config_schema, identities, run, status, step
from holdfast.wire.errors import HoldfastError, Retry

DEFAULT_CONFIG: Final = Path("/etc/holdfast/holdfast.yaml")

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_OPERATOR: Final = 2
EXIT_LOCKED: Final = 75  # EX_TEMPFAIL: another step is running

COMMANDS: Final = (step, run, status, identities, config_schema)


def parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    top = argparse.ArgumentParser(
        prog="holdfast",
        description="Gives this gateway its identity and keeps it.",
        epilog="exit status: 0 done, 1 an attempt failed and can be made again, "
        "2 a person must act, 75 another step is running",
    )
    top.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path(os.environ.get("HOLDFAST_CONFIG", DEFAULT_CONFIG)),
        help=f"configuration file (default: $HOLDFAST_CONFIG or {DEFAULT_CONFIG})",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.register(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status. Errors go to standard error in one line or, with
    ``--json``, to standard output as an object with the key ``error``."""
    arguments = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what this terminal cannot show
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except HoldfastError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"ok": False, "error": error.diagnostics()}))
        else:
            print(f"holdfast: {error}", file=sys.stderr)
        if error.code == "state.locked":
            return EXIT_LOCKED
        return EXIT_FAILED if error.retry is Retry.BACKOFF else EXIT_OPERATOR


if __name__ == "__main__":
    sys.exit(main())
