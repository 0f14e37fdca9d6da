"""``holdfast proxy``: the join proxy for pledges on links that have no way to the registrar."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import time
from dataclasses import replace
from typing import Any

from holdfast.cli.exits import EXIT_OK
from holdfast.host.config import DiscoverySettings, JoinProxySettings, Settings, load
from holdfast.host.discovery.interfaces import Interface, listening
from holdfast.host.discovery.search import World, search
from holdfast.host.joinproxy.allowance import ProxyLimits
from holdfast.host.joinproxy.server import JoinProxy
from holdfast.host.joinproxy.upstream import Upstream
from holdfast.host.notify import Notifier
from holdfast.host.store import StateStore
from holdfast.life.record import DomainState
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Role
from holdfast.wire.errors import ConfigError, StateError


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("proxy", help="lead pledges of a link to the registrar (join proxy)")
    command.add_argument(
        "--interface", action="append", default=[], metavar="NAME", help="serve this link (repeatable)"
    )
    command.add_argument("--registrar", action="append", default=[], metavar="HOST:PORT", help="lead there")
    command.add_argument("--json", action="store_true", help="tell of beginning and end as JSON lines")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs until SIGTERM. Raises ConfigError where there is no link to serve."""
    settings = load(arguments.config)
    own = settings.join_proxy or JoinProxySettings()
    interfaces = _interfaces(tuple(arguments.interface) or own.interfaces)
    named = tuple(arguments.registrar) or own.registrars
    upstream = Upstream(lambda: named or _found(settings, interfaces))
    try:
        proxy = JoinProxy(
            interfaces,
            own.port,
            lambda: upstream.targets,
            limits_of(own),
            random=secrets.token_bytes,
            monotonic=time.monotonic,
        )
    except OSError as error:
        raise ConfigError("proxy.link", f"{', '.join(i.name for i in interfaces)}: {error}") from error
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    upstream.start()
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    notifier.tell(READY=1, STATUS=f"serving {', '.join(i.name for i in interfaces)}")
    _tell(arguments, "serving", interfaces=[i.name for i in interfaces], ports=list(proxy.ports))
    try:
        while not ended:
            proxy.turn()
            notifier.tell(WATCHDOG=1)
    finally:
        upstream.stop()
        proxy.close()
    _tell(arguments, "ended", served=proxy.served, refused=proxy.ledger.refused)
    return EXIT_OK


def limits_of(settings: JoinProxySettings) -> ProxyLimits:
    """The limits that the configuration asks for."""
    return ProxyLimits(
        connections=settings.connections_per_source,
        new_per_minute=settings.new_per_minute,
        most_connections=settings.connections,
        octets=settings.octets,
        seconds=settings.seconds,
    )


def _interfaces(names: tuple[str, ...]) -> tuple[Interface, ...]:
    if not names:
        raise ConfigError("proxy.link", "name the links to serve: join-proxy: {interfaces: [...]}")
    found = listening(names)
    if missing := sorted(set(names) - {each.name for each in found}):
        raise ConfigError("proxy.link", f"{', '.join(missing)}: not up, or without multicast")
    return found


def _found(settings: Settings, served: tuple[Interface, ...]) -> tuple[str, ...]:
    """Our own registrar if we have one, else those of the configuration, else whom a search finds: never on a
    link that we serve, because whoever is there needs us."""
    own = _own_registrar(settings)
    if own:
        return own
    discovery = settings.discovery or DiscoverySettings(order=(Source.LIST,))
    others = tuple(each.name for each in listening() if each not in served)
    order = tuple(s for s in discovery.order if others or s not in {Source.MDNS, Source.GRASP})
    narrowed = replace(settings, discovery=replace(discovery, interfaces=others, order=order))
    found = search(narrowed, discovery.listen_seconds, (), World(secrets.token_bytes, time.monotonic))
    return tuple(place.endpoint for _, place in found.places if place.role is Role.REGISTRAR)


def _own_registrar(settings: Settings) -> tuple[str, ...]:
    try:
        record = StateStore(settings.state_directory).peek().record
    except StateError:  # a proxy need not be enrolled, and its user need not see the record
        return ()
    if record is None or record.domain.state is not DomainState.VOUCHED:
        return ()
    return (record.domain.registrar,)


def _tell(arguments: argparse.Namespace, what: str, **values: object) -> None:
    if arguments.json:
        print(json.dumps({"proxy": what, **values}), flush=True)
    else:
        print(f"{what}: {', '.join(f'{k} {v}' for k, v in values.items())}", flush=True)
