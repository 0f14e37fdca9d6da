"""The only module with sockets: aiohttp carries requests to the site and answers back, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, get_args
from weakref import WeakSet

from aiohttp import web

from holdfast.wire.model import HttpRequest

from .answers import MAX_BODY, Answer, Delivery, Peer
from .faults import Fault, FaultPlan
from .site import Server, Site
from .tls import Listener
from .transcript import Transcript
from .world import World

LOOPBACK: Final = "127.0.0.1"
SERVERS: Final[tuple[Server, ...]] = get_args(Server)
CHUNK: Final = 64 * 1024
LONGEST_LINE: Final = 32 * 1024  # a SCEP message may stand in the request line
UNTYPED: Final = "x-holdfast-sim/none"
LISTENER: Final[web.AppKey[Listener | None]] = web.AppKey("listener")
TRANSPORTS: Final[web.AppKey[WeakSet[asyncio.Transport]]] = web.AppKey("transports")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers listen: (host, port) each."""

    registrar: tuple[str, int]
    masa: tuple[str, int]
    application: tuple[str, int]
    plain: tuple[str, int]
    cloud: tuple[str, int]

    @property
    def est_url(self) -> str:
        return f"https://{self.registrar[0]}:{self.registrar[1]}/.well-known/est"

    @property
    def brski_url(self) -> str:
        return f"https://{self.registrar[0]}:{self.registrar[1]}/.well-known/brski"

    @property
    def plain_url(self) -> str:
        """Without TLS; SCEP's path comes after it."""
        return f"http://{self.plain[0]}:{self.plain[1]}"

    @property
    def masa_url(self) -> str:
        return f"https://{self.masa[0]}:{self.masa[1]}/.well-known/brski"


@dataclass(frozen=True, slots=True)
class Running:
    """Live servers, as a test or the demo uses them."""

    addresses: Addresses
    site: Site

    @property
    def world(self) -> World:
        return self.site.world

    @property
    def faults(self) -> FaultPlan:
        return self.site.faults

    @property
    def transcript(self) -> Transcript:
        return self.site.transcript


@contextlib.asynccontextmanager
async def serving(site: Site, host: str = LOOPBACK, *, port: int = 0) -> AsyncIterator[Addresses]:
    """Listen with all servers until the block ends. *port* is the registrar's; 0 lets the system choose."""
    runners: list[web.AppRunner] = []
    bound: dict[str, tuple[str, int]] = {}
    try:
        for server in SERVERS:
            runner = _runner(site, server)
            runners.append(runner)
            await runner.setup()
            listener = _bind(host, port if server == "registrar" else 0)
            bound[server] = listener.getsockname()[:2]
            await web.SockSite(runner, listener, ssl_context=_context(runner)).start()
        yield Addresses(**bound)
    finally:
        for runner in runners:
            await _end(runner)


@contextlib.contextmanager
def running_server(
    world: World, faults: Iterable[Fault] = (), *, host: str = LOOPBACK, transcript: Transcript | None = None
) -> Iterator[Running]:
    """The same in a thread of its own. Leaving the block stops it and waits for its end."""
    site = Site(world, faults, transcript=transcript)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    outcome: list[Addresses | BaseException] = []

    async def run() -> None:
        async with serving(site, host) as addresses:
            outcome.append(addresses)
            ready.set()
            await stop.wait()

    def thread() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            outcome.append(error)
        finally:
            loop.close()
            ready.set()

    worker = threading.Thread(target=thread, name="holdfast-sim", daemon=True)
    worker.start()
    ready.wait()
    try:
        first = outcome[0]
        if isinstance(first, BaseException):
            raise first
        yield Running(first, site)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed if the start failed
            loop.call_soon_threadsafe(stop.set)
        worker.join()
    if isinstance(outcome[-1], BaseException):
        raise outcome[-1]


def _runner(site: Site, server: Server) -> web.AppRunner:
    listener = None if server == "plain" else Listener(site, server)

    async def handle(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest(text="the connection has ended\n")
        peer = Peer((), ()) if listener is None else listener.peer(transport.get_extra_info("ssl_object"))
        app[TRANSPORTS].add(transport)
        message = HttpRequest(
            request.method, request.raw_path, tuple(request.headers.items()), await request.read()
        )
        return await _deliver(request, site.answer(server, message, peer))

    app = web.Application(client_max_size=MAX_BODY)
    app[LISTENER] = listener
    app[TRANSPORTS] = WeakSet()
    app.router.add_route("*", "/{path:.*}", handle)
    app.on_response_prepare.append(_say_no_more)
    return web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=0.5, max_line_size=LONGEST_LINE
    )


def _context(runner: web.AppRunner) -> ssl.SSLContext | None:
    listener = runner.app[LISTENER]
    return None if listener is None else listener.context


async def _end(runner: web.AppRunner) -> None:
    """Stop, and let go of clients that do not answer our goodbye: TLS would wait for theirs."""
    open_now = {*runner.app[TRANSPORTS]}
    if runner.server is not None:
        open_now |= {each.transport for each in runner.server.connections if each.transport is not None}
    await runner.cleanup()
    for transport in open_now:
        # Python 3.11.2's TLS transport forgets its protocol when it is closed twice, and then cannot abort.
        with contextlib.suppress(AttributeError):
            transport.abort()
    for _ in range(2):  # TLS first, then the socket below it, each in a turn of the loop
        await asyncio.sleep(0)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


async def _deliver(request: web.Request, answer: Answer) -> web.StreamResponse:
    delivery, body = answer.delivery, answer.response.body
    if delivery.delay:
        await asyncio.sleep(delivery.delay)
    if delivery.drop:
        assert request.transport is not None
        request.transport.abort()
        return web.Response(status=500)  # goes nowhere
    headers = [h for h in answer.response.headers if h[0].lower() != "content-length"]
    if answer.response.header("Content-Type") is None:
        headers.append(("Content-Type", UNTYPED))
    if delivery.keep is None and not delivery.pad:
        return web.Response(status=answer.response.status, headers=headers, body=body)
    response = web.StreamResponse(status=answer.response.status, headers=headers)
    await _stream(request, response, body, delivery)
    return response


async def _say_no_more(_request: web.Request, response: web.StreamResponse) -> None:
    """aiohttp adds a Content-Type where the site gave none; a server without one is to be seen as such."""
    if response.headers.get("Content-Type") == UNTYPED:
        del response.headers["Content-Type"]


async def _stream(
    request: web.Request, response: web.StreamResponse, body: bytes, delivery: Delivery
) -> None:
    if delivery.chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(body) + delivery.pad
    await response.prepare(request)
    await response.write(body if delivery.keep is None else body[: delivery.keep])
    if delivery.keep is not None:
        assert request.transport is not None
        request.transport.close()
        return
    rest = delivery.pad
    with contextlib.suppress(ConnectionError):  # the client has seen enough
        while rest > 0:
            await response.write(b" " * min(rest, CHUNK))
            rest -= CHUNK
        await response.write_eof()
