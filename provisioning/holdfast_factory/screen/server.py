"""The line screen over HTTP: loopback by default, TLS anywhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from holdfast.wire.errors import ConfigError, HoldfastError
from holdfast_factory.screen import guard
from holdfast_factory.screen.desk import Desk
from holdfast_factory.screen.guard import HOSTS, SESSIONS
from holdfast_factory.screen.live import Pulse
from holdfast_factory.screen.pages import PAGES, Pages
from holdfast_factory.screen.sessions import Sessions
from holdfast_factory.screen.stations import Stations

MAX_BODY: Final = 16 * 1024
HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to serve. Without *certificate* and *key* (PEM files) only loopback addresses are allowed.

    *name* is how browsers call this host, if not by the address.
    """

    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    certificate: Path | None = None
    key: Path | None = None


@asynccontextmanager
async def serving(
    desk: Desk,
    stations: Stations,
    accounts: Path,
    listening: Listening,
    *,
    now: Callable[[], datetime],
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[str]:
    """Serve until the context ends; gives the page's URL. Stations of this screen are stopped at the end.

    Raises ConfigError ``factory.screen``: an address beyond loopback without TLS, files that do not load, an
    address or port that cannot be had.
    """
    tls = _tls(listening)
    pulse = Pulse(desk.head)
    app = application(Sessions(clock), Pages(desk, stations, pulse, accounts, now))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listening.host, listening.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            where = f"{listening.host} port {listening.port}"
            raise ConfigError("factory.screen", f"{where}: {error.strerror}") from error
        port = runner.addresses[0][1]
        host = listening.name or (f"[{listening.host}]" if ":" in listening.host else listening.host)
        app[HOSTS].update({f"{host}:{port}", *({f"localhost:{port}"} if not tls else ())})
        watching = asyncio.create_task(pulse.run())
        try:
            yield f"{'https' if tls else 'http'}://{host}:{port}/"
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await stations.stop_all()
    finally:
        await runner.cleanup()


def application(sessions: Sessions, pages: Pages) -> web.Application:
    """The routes behind the guard."""
    app = web.Application(
        middlewares=[guard.headers, guard.host, guard.session, _errors, guard.changes],
        client_max_size=MAX_BODY,
    )
    app[SESSIONS] = sessions
    app[HOSTS] = set()
    app[PAGES] = pages
    app.add_routes(
        [
            web.get("/", pages.line),
            web.get("/live", pages.live),
            web.get("/events", pages.pulse.serve),
            web.get("/login", pages.login),
            web.post("/login", pages.log_in),
            web.post("/logout", pages.log_out),
            web.get("/unit", pages.unit),
            web.post("/reprint", pages.reprint),
            web.get("/label.{form:[a-z]+}", pages.label),
            web.post("/stations/{station}/start", pages.start),
            web.post("/stations/{station}/stop", pages.stop),
            web.post("/export/{receiver}", pages.export),
            web.post("/audit", pages.audit),
            web.static("/static", HERE / "static"),
        ]
    )
    return app


@web.middleware
async def _errors(request: web.Request, handler: guard.Handler) -> web.StreamResponse:
    """What the ledger or a form got wrong, as a page instead of a traceback."""
    try:
        return await handler(request)
    except ConfigError as error:
        return request.app[PAGES].message(request, "That cannot be done", str(error), status=400)
    except HoldfastError as error:
        return request.app[PAGES].message(request, "The ledger does not answer", str(error), status=503)


def _tls(listening: Listening) -> ssl.SSLContext | None:
    if listening.certificate is None or listening.key is None:
        try:
            loopback = ipaddress.ip_address(listening.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ConfigError(
                "factory.screen", f"{listening.host} is not loopback: give a TLS certificate and its key"
            )
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(listening.certificate, listening.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("factory.screen", f"{listening.certificate}, {listening.key}: {error}") from error
    return context
