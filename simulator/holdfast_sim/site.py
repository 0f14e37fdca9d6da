"""The servers of the simulator, by name, as one function from request to answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from threading import Lock
from typing import Literal

from holdfast.wire.errors import ConfigError, HoldfastError
from holdfast.wire.model import Chain, HttpRequest, HttpResponse

from . import cloud as cloud_registrar
from . import cmc, cmp, est, masa, registrar, scep, standing
from .acme import server as acme
from .answers import MAX_BODY, Answer, Delivery, Peer, Refused, header, ok_json, path_of, require_size
from .ca import Credential
from .clients import Kind, identify
from .faults import CMC, CMP, ENDPOINTS, EVERYWHERE, Fault, FaultPlan
from .misdelivery import serve
from .transcript import Transcript
from .world import World

Server = Literal["registrar", "masa", "application", "plain", "cloud"]


class Site:
    """All servers over one world. One request is handled at a time; calls may come from any thread.

    ``registrar`` speaks BRSKI and EST on one port, as RFC 8995 wants, and CMP, CMC and SCEP beside them;
    ``plain`` has no TLS and speaks those three, whose messages protect themselves. ``cloud`` is the
    maker's registrar, at as many names as are wanted. ``application`` stands for what the device is there
    for: it wants an LDevID and says whose it saw.
    """

    def __init__(
        self,
        world: World,
        faults: Iterable[Fault] = (),
        *,
        transcript: Transcript | None = None,
        cloud: cloud_registrar.Cloud | None = None,
    ) -> None:
        self.world = world
        self.cloud = cloud or cloud_registrar.Cloud()
        self.faults = FaultPlan(faults)
        self.transcript = transcript if transcript is not None else Transcript()
        self._lock = Lock()

    def answer(self, server: Server, request: HttpRequest, peer: Peer) -> Answer:
        """Handle one request. Raises nothing: every mistake of the client becomes a status code."""
        with self._lock:
            where = self._endpoint(server, request) or EVERYWHERE
            answer = serve(
                self.world, self.faults, where, request, lambda: self._process(server, request, peer)
            )
            self.transcript.add(self.world.now(), server, peer, request, answer)
        return answer

    def server_credential(self, server: Server) -> Credential:
        """What a new connection to *server* is shown. Asking is the occasion of ``swap-certificate``."""
        match server:
            case "masa" | "cloud":
                return self.world.masa_tls
            case "application":
                return self.world.domain.application
            case "plain":
                raise ConfigError("sim.plain", "plain HTTP shows no certificate")
            case "registrar":
                swapped = self.faults.due("registrar", "swap-certificate")
                return (self.world.impostor if swapped else self.world.domain).registrar

    def _endpoint(self, server: Server, request: HttpRequest) -> str | None:
        """The name that a fault uses for the endpoint of *request*."""
        path = path_of(request)
        name = path.rpartition("/")[2]
        if server == "masa":
            name = "masa-requestvoucher" if name == "requestvoucher" else name
        elif server not in ("application", "cloud") and cmp.serves(request):
            name = CMP
        elif server in ("registrar", "plain") and cmc.serves(self.world, request):
            name = CMC
        elif (where := scep.operation(self.world, request)) is not None and server in ("registrar", "plain"):
            name = where
        elif server == "registrar" and path.startswith(est.ROOT):
            name = est.operation(self.world, request) or ""
        elif server == "registrar" and path.startswith(acme.ROOT):
            name = acme.operation(request)
        return name if name in ENDPOINTS else None

    def _process(self, server: Server, request: HttpRequest, peer: Peer) -> HttpResponse:
        try:
            require_size(request)
            return self._route(server, request, peer)
        except Refused as refusal:
            return refusal.response()
        except HoldfastError as error:
            return Refused(500, f"the simulator could not do it: {error}").response()

    def _route(self, server: Server, request: HttpRequest, peer: Peer) -> HttpResponse:
        if server == "masa":
            return masa.handle(self.world, self.faults, request, peer)
        if server == "cloud":
            return cloud_registrar.handle(self.world, self.faults, self.cloud, request, peer)
        if server == "application":
            return _application(self.world, request, peer)
        if server == "plain" and path_of(request) in standing.PATHS:
            return standing.handle(self.world, self.faults, request)
        if cmp.serves(request):
            return cmp.handle(self.world, self.faults, request)
        if cmc.serves(self.world, request):
            return cmc.handle(self.world, self.faults, request, peer)
        if server == "plain" or path_of(request) == self.world.scep.path:
            return scep.handle(self.world, self.faults, request)
        if path_of(request).startswith(registrar.ROOT):
            return registrar.handle(self.world, self._ask_masa, request, peer)
        if path_of(request).startswith(acme.ROOT):
            return acme.handle(self.world, self.faults, request, f"https://{header(request, 'Host')}")
        return est.handle(self.world, self.faults, request, peer)

    def _ask_masa(self, request: HttpRequest, peer: Peer) -> HttpResponse:
        """The registrar's question to the MASA, and what reaches it of the answer."""
        where = self._endpoint("masa", request) or EVERYWHERE

        def ask() -> HttpResponse:
            try:
                return masa.handle(self.world, self.faults, request, peer)
            except Refused as refusal:
                return refusal.response()

        answer = serve(self.world, self.faults, where, request, ask)
        lost = answer.delivery != Delivery(pad=answer.delivery.pad)
        if lost or len(answer.response.body) + answer.delivery.pad > MAX_BODY:
            return Refused(504, "the MASA gave no whole answer").response()
        return replace(answer.response, body=answer.response.body + bytes(answer.delivery.pad))


def without_root(chain: Chain) -> Chain:
    """What a server sends in TLS: nobody needs the root from the wire."""
    return chain[:-1] if len(chain) > 1 and chain[-1].issuer == chain[-1].subject else chain


def _application(world: World, _request: HttpRequest, peer: Peer) -> HttpResponse:
    client = identify(world, peer)
    if client is None:
        raise Refused(401, "a client certificate (LDevID) is required")
    if client.kind is not Kind.LDEVID:
        raise Refused(403, "an IDevID is no identity of this domain")
    serial = format(client.certificate.serial_number, "x")
    return ok_json(
        {"hello": client.name, "serial": serial, "issuer": client.certificate.issuer.rfc4514_string()}
    )
