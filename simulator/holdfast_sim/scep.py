"""The SCEP server (RFC 8894): its four operations, over GET and POST, with and without TLS."""

from __future__ import annotations

from urllib.parse import unquote

from holdfast.wire import cms, oids
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse
from holdfast.wire.scep import http

from . import scep_requests
from .answers import Refused, ok, path_of, require_method
from .der import certificates_only
from .domain import Domain
from .faults import FaultPlan
from .scep_authority import ScepAuthority
from .world import World

OPERATIONS = {
    "GetCACaps": "getcacaps",
    "GetCACert": "getcacert",
    "GetNextCACert": "getnextcacert",
    "PKIOperation": "pkioperation",
}


def operation(world: World, request: HttpRequest) -> str | None:
    """The place of *request* as faults name it, None if it is no SCEP request."""
    if path_of(request) != world.scep.path:
        return None
    return OPERATIONS.get(_query(request).get("operation", ""))


def handle(world: World, plan: FaultPlan, request: HttpRequest) -> HttpResponse:
    """Serve one SCEP request. Raises Refused."""
    match operation(world, request):
        case "getcacaps":
            return _capabilities(world)
        case "getcacert":
            return _certificates(world, plan)
        case "getnextcacert":
            return _next(world, plan)
        case "pkioperation":
            return ok(scep_requests.answer(world, plan, _message(world, request)), http.MESSAGE_TYPE)
        case _:
            raise Refused(404, "no such SCEP operation")


def authority(world: World) -> ScepAuthority:
    return world.scep_desk.at_work(world.domain, world.scep.mode, world.now(), world.random)


def _capabilities(world: World) -> HttpResponse:
    if world.scep.capabilities is None:
        raise Refused(404, "GetCACaps is not known here")
    end = world.scep.line_end
    return ok(end.join((*world.scep.capabilities, "")).encode(), "text/plain")


def _certificates(world: World, plan: FaultPlan) -> HttpResponse:
    chain = authority(world).chain
    if plan.due("getcacert", "foreign-anchor"):
        chain = ScepAuthority.of(world.impostor, world.scep.mode, world.now(), world.random).chain
    elif plan.due("getcacert", "device-ra"):
        device = scep_requests.stranger(world)
        chain = (device.certificate, *chain[1:])
    if len(chain) == 1:
        return ok(chain[0].public_bytes(scep_requests.DER), http.CA_CERT)
    return ok(certificates_only(chain), http.CA_RA_CERT)


def _next(world: World, plan: FaultPlan) -> HttpResponse:
    coming = world.scep_desk.coming
    if coming is None:
        raise Refused(404, "no other CA is to come")
    certificates = certificates_only((coming.root.certificate, coming.issuing.certificate))
    if plan.due("getnextcacert", "leaf-anchor"):
        certificates = certificates_only((coming.registrar.certificate,))
    by = authority(world).issuing.credential
    if plan.due("getnextcacert", "foreign-signer"):
        by = world.impostor.issuing.credential
    elif plan.due("getnextcacert", "device-signer"):
        by = scep_requests.stranger(world)
    signed = cms.sign(certificates, oids.CT_DATA, by.key, by.certificate)
    return ok(signed, http.NEXT_CA_CERT)


def announce_next(world: World) -> Domain:
    """Prepare a rollover: GetNextCACert tells of it, and it comes into force with :func:`activate_next`."""
    coming = world.domain.rolled_over(world.now(), world.random)
    world.scep_desk.coming = coming
    return coming


def activate_next(world: World) -> None:
    assert world.scep_desk.coming is not None
    world.domain, world.scep_desk.coming = world.scep_desk.coming, None


def _message(world: World, request: HttpRequest) -> bytes:
    if request.method == "POST":
        announced = {word.lower() for word in world.scep.capabilities or ()}
        if not announced & {"postpkioperation", "scepstandard"}:
            raise Refused(405, "this server takes messages by GET alone", ("Allow", "GET"))
        return request.body
    require_method(request, "GET")
    try:
        return http.message_of_query(_query(request).get("message", ""))
    except HoldfastError as error:
        raise Refused(400, str(error)) from error


def _query(request: HttpRequest) -> dict[str, str]:
    """Percent-decoded parameters. A plus stays a plus: base64 has them, and clients forget to escape."""
    pairs = (pair.partition("=") for pair in request.target.partition("?")[2].split("&"))
    return {unquote(name): unquote(value) for name, _, value in pairs}
