"""``holdfast log``: what the agent told the journal, in words."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from holdfast.cli import terminal
from holdfast.cli.exits import EXIT_OK
from holdfast.cli.words import shown, timestamp
from holdfast.wire.errors import ConfigError

IDENTIFIERS: Final = ("holdfastd", "holdfast")
MAX_LINE: Final = 1 << 20
_LEVELS: Final = {"0": "red", "1": "red", "2": "red", "3": "red", "4": "yellow"}


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("log", help="what the agent told the journal, in words")
    command.add_argument(
        "-n", "--lines", type=int, default=50, metavar="N", help="the last N entries (default: 50)"
    )
    command.add_argument("-f", "--follow", action="store_true", help="go on showing new entries")
    command.add_argument("--since", metavar="TIME", help="only later ones; as journalctl spells times")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises ConfigError where there is no journal: the agent then tells its standard error."""
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        raise ConfigError(
            "cli.no-journal", "this host has no journal; the agent writes to its standard error"
        )
    command = [journalctl, "--output=json", "--quiet", "--no-pager", f"--lines={max(arguments.lines, 0)}"]
    command += [f"--identifier={name}" for name in IDENTIFIERS]
    command += ["--follow"] if arguments.follow else []
    command += [f"--since={arguments.since}"] if arguments.since else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reading:  # noqa: S603
        try:
            for entry in entries(reading.stdout):
                print(json.dumps(entry) if arguments.json else line(entry), flush=True)
        except BaseException:
            reading.kill()  # a closed pipe or Ctrl-C: it would follow for ever
            raise
        said = reading.stderr.read(2000) if reading.stderr else ""
    if reading.returncode != 0:
        raise ConfigError("cli.journal", said.strip() or f"journalctl ended with {reading.returncode}")
    return EXIT_OK


def entries(lines: IO[str] | None) -> Iterator[dict[str, Any]]:
    """The fields of each entry that are text, under the journal's names. What is no entry is left out."""
    while lines is not None and (text := lines.readline(MAX_LINE)):
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("MESSAGE"), str):
            yield {k: v for k, v in entry.items() if isinstance(v, str) and _ours(k)}


def _ours(name: str) -> bool:
    return name in {"MESSAGE", "MESSAGE_ID", "PRIORITY", "__REALTIME_TIMESTAMP"} or name.startswith(
        "HOLDFAST_"
    )


def line(entry: Mapping[str, Any]) -> str:
    """Time, text, and the state and reason where the entry has them."""
    try:
        moment = datetime.fromtimestamp(int(entry.get("__REALTIME_TIMESTAMP", "0")) / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    text = shown(str(entry["MESSAGE"]))
    colour = _LEVELS.get(str(entry.get("PRIORITY", "")))
    return f"{timestamp(moment)} {terminal.coloured(text, colour) if colour else text}"
