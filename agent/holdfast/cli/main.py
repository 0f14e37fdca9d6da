"""``holdfast``: the entry point, its options and its exit statuses."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from holdfast.cli.exits import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_LOCKED,
    EXIT_OK,
    EXIT_OPERATOR,
    epilog,
)
from holdfast.wire.errors import HoldfastError, Retry

__all__ = [
    "COMMANDS",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_LOCKED",
    "EXIT_OK",
    "EXIT_OPERATOR",
    "main",
    "parser",
]

DEFAULT_CONFIG: Final = Path("/etc/holdfast/holdfast.yaml")

COMMANDS: Final = {
    "status": "status",
    "why": "why",
    "plan": "plan",
    "doctor": "doctor",
    "step": "step",
    "run": "run",
    "proxy": "proxy",
    "renew": "renew",
    "revoke": "revoke",
    "identities": "identities",
    "show": "show",
    "config": "config",
    "log": "log",
    "completion": "completion",
}
"""Commands and their modules in this package, in the order of the help. A module is loaded when its command
is asked for: a command that only looks must not wait for TPM and TLS."""


def parser(commands: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The options of *commands*: all of them, unless only some can be meant."""
    top = argparse.ArgumentParser(
        prog="holdfast",
        description="Gives this gateway its identity and keeps it.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(os.environ.get("HOLDFAST_CONFIG") or DEFAULT_CONFIG),
        help=f"configuration file (default: $HOLDFAST_CONFIG or {DEFAULT_CONFIG})",
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in commands:
        import_module(f"holdfast.cli.{COMMANDS[name]}").register(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status. Errors go to standard error in one line or, with
    ``--json``, to standard output as an object with the key ``error``."""
    words = sys.argv[1:] if argv is None else list(argv)
    named = [name for name in COMMANDS if name in words]
    arguments = parser(named or COMMANDS).parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what this terminal cannot show
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()  # here, where a closed pipe is still an answer and no traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HoldfastError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"ok": False, "error": error.diagnostics()}))
        else:
            print(f"holdfast: {error}", file=sys.stderr)
        if error.code == "state.locked":
            return EXIT_LOCKED
        return EXIT_FAILED if error.retry is Retry.BACKOFF else EXIT_OPERATOR
    return status


if __name__ == "__main__":
    sys.exit(main())
