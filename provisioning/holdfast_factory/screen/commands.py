"""The commands of the screen: ``screen`` and ``people``."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from holdfast.wire.errors import ConfigError
from holdfast_factory.screen import people
from holdfast_factory.screen.people import MAX_PASSWORD, Role


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both to *commands*; each names its function in ACTS as ``act``."""
    screen = commands.add_parser("screen", help="show the line on a web page, until stopped")
    screen.add_argument("--factory", required=True, type=Path, metavar="DIR", help="made by ca init")
    screen.add_argument("--ledger", metavar="URL", help="postgresql://..., or sqlite:///FILE (in DIR)")
    screen.add_argument(
        "--station",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="a station that the page starts and stops, and where its unit is; repeatable",
    )
    screen.add_argument(
        "--makers", action="append", default=[], type=Path, metavar="FILE", help="roots of TPM makers (PEM)"
    )
    screen.add_argument("--labels", type=Path, metavar="DIR", help="write labels here for the printer")
    screen.add_argument("--host", default="127.0.0.1", help="address to listen on; beyond loopback with TLS")
    screen.add_argument("--port", type=int, default=0, help="port to listen on (default: any)")
    screen.add_argument("--name", default="", help="how browsers call this host, if not by its address")
    screen.add_argument("--certificate", type=Path, metavar="FILE", help="for TLS, PEM")
    screen.add_argument("--key", type=Path, metavar="FILE", help="its private key, PEM")
    screen.set_defaults(act="screen")
    person = commands.add_parser("people", help="who may use the screen")
    person.add_argument("--factory", required=True, type=Path, metavar="DIR")
    does = person.add_subparsers(dest="people", required=True)
    admit = does.add_parser("admit", help="add somebody; the password is asked for, or read from a pipe")
    admit.add_argument("name")
    admit.add_argument("--role", choices=[role.value for role in Role], default=Role.OPERATOR.value)
    dismiss = does.add_parser("dismiss", help="take somebody out")
    dismiss.add_argument("name")
    does.add_parser("list", help="names and roles")
    person.set_defaults(act="people")


def keep_people(options: argparse.Namespace) -> int:
    """Add, take out or list."""
    match options.people:
        case "admit":
            people.admit(options.factory, options.name, Role(options.role), _password())
            print(f"{options.name}: {options.role}")
        case "dismiss":
            people.dismiss(options.factory, options.name)
            print(f"{options.name}: dismissed")
        case _:
            for person in people.people(options.factory).values():
                print(f"{person.name:<32} {person.role.value}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Serve the page until SIGTERM or SIGINT."""
    from holdfast_factory.line.acts import opened  # noqa: PLC0415 - people need no database
    from holdfast_factory.screen.desk import Desk  # noqa: PLC0415
    from holdfast_factory.screen.server import Listening, serving  # noqa: PLC0415
    from holdfast_factory.screen.stations import Stations  # noqa: PLC0415

    listening = Listening(options.host, options.port, options.name, options.certificate, options.key)
    if not people.people(options.factory):
        raise ConfigError("factory.people", "nobody may log in yet: holdfast-factory people ... admit NAME")
    stations = Stations(_places(options.station), lambda name, place: _run(options, name, place))
    with ExitStack() as stack:
        plant, book = stack.enter_context(opened(options, "screen"))
        desk = Desk(book, plant, _now(), options.labels)

        async def serve() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            async with serving(desk, stations, options.factory, listening, now=_now) as url:
                print(url, flush=True)
                await stop.wait()

        asyncio.run(serve())
    return 0


ACTS = {"screen": show, "people": keep_people}


def _run(options: argparse.Namespace, station: str, place: str) -> Sequence[str]:
    words = [sys.executable, "-m", "holdfast_factory.cli", "run", "--json", "--factory", str(options.factory)]
    words += ["--station", station, "--at", place]
    if options.ledger:
        words += ["--ledger", options.ledger]
    for maker in options.makers:
        words += ["--makers", str(maker)]
    if options.labels:
        words += ["--labels", str(options.labels)]
    return words


def _places(given: Sequence[str]) -> dict[str, str]:
    places: dict[str, str] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not (name and equals and place) or name in places:
            raise ConfigError("factory.station", f"--station {text!r}: NAME=PLACE, each name once")
        places[name] = place
    return places


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline(MAX_PASSWORD + 2).rstrip("\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise ConfigError("factory.people", "the two passwords differ")
    return first


def _now() -> datetime:
    return datetime.now(UTC)
