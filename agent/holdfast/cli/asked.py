"""The status as the running agent tells it: for members of its group, who may not read the record itself."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.cli.advice import advice
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK
from holdfast.cli.progress import words
from holdfast.cli.words import shown, times, when
from holdfast.control_client import DEFAULT_SOCKET, ControlClient, ControlError
from holdfast.wire.errors import HoldfastError


def add_socket_option(command: argparse.ArgumentParser) -> None:
    """Where the agent is asked: the same option for every command that asks it."""
    command.add_argument(
        "--socket", type=Path, default=DEFAULT_SOCKET, metavar="PATH", help="the agent's control socket"
    )


def ask_instead(socket: Path, error: HoldfastError, *, as_json: bool) -> int:
    """Print what the agent at *socket* tells, in the place of what *error* kept us from reading.

    Raises *error* itself for root, who may read everything, and where no agent answers.
    """
    if os.geteuid() == 0:
        raise error
    try:
        with ControlClient(socket) as agent:
            status = agent.get_status()
    except ControlError:
        raise error from None
    if as_json:
        print(json.dumps({"by": "agent", "status": status}))
    else:
        print("\n".join(lines(status, datetime.now(UTC))))
    states = [i.get("state") for i in _identities(status)]
    return EXIT_OK if states and set(states) == {"active"} else EXIT_FAILED


def lines(status: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """The Varlink type Status for a person. It comes from the agent, but much of it in strangers' words."""
    for line in _lines(status, now):
        yield shown(line)


def _lines(status: Mapping[str, Any], now: datetime) -> Iterator[str]:
    yield f"agent       {status.get('state', 'unknown')}"
    due = _moment(status.get("due_at"))
    if due is not None:
        yield f"  next      {when(due, now)}"
    working = status.get("working")
    if isinstance(working, Mapping):
        yield f"  at work   {words(str(working.get('doing')))} {working.get('identity') or ''}".rstrip()
    for entry in _identities(status):
        yield f"{entry.get('name')!s:<11} {entry.get('state')}, generation {entry.get('generation')}"
        end = _moment(entry.get("not_after"))
        if end is not None:
            yield f"  valid     until {when(end, now)}"
        under_way = str(entry.get("transaction") or "none")
        if under_way != "none":
            yield f"  under way {under_way}"
        if isinstance(entry.get("attempts"), int) and entry["attempts"]:
            yield f"  failed    {times(entry['attempts'], 'time')}"
    trouble = status.get("trouble")
    if isinstance(trouble, Mapping):
        clause = f" ({trouble['clause']})" if trouble.get("clause") else ""
        yield f"trouble     {trouble.get('code')}: {trouble.get('detail')}{clause}"
        yield f"  advice    {advice(str(trouble.get('code')))}"


def _identities(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = status.get("identities")
    return [i for i in found if isinstance(i, Mapping)] if isinstance(found, list) else []


def _moment(seconds: object) -> datetime | None:
    """A date from seconds since 1970; None for what is none."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
