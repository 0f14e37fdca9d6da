"""The EST server (RFC 7030, 8951, 9908): what it hands out, and where its requests go."""

from __future__ import annotations

from holdfast.wire.est.csrattrs import encode_csrattrs
from holdfast.wire.model import HttpRequest, HttpResponse

from . import enroll
from .answers import Peer, Refused, ok, path_of, require_method
from .der import certificates_only, to_base64
from .faults import FaultPlan
from .world import World

ROOT = "/.well-known/est/"
CERTS_ONLY = "application/pkcs7-mime"
BASE64 = ("Content-Transfer-Encoding", "base64")


def operation(world: World, request: HttpRequest) -> str | None:
    """The EST operation that *request* names, None if its path is none of ours."""
    path = path_of(request)
    if not path.startswith(ROOT):
        return None
    *label, name = path.removeprefix(ROOT).split("/")
    if len(label) > 1 or (label and label[0] not in world.est.labels):
        return None
    return name


def handle(world: World, plan: FaultPlan, request: HttpRequest, peer: Peer) -> HttpResponse:
    """Serve one EST request. Raises Refused."""
    match operation(world, request):
        case "cacerts":
            require_method(request, "GET")
            return _certificates(world, plan)
        case "csrattrs":
            require_method(request, "GET")
            return _wishes(world)
        case "simpleenroll" | "simplereenroll" as name:
            require_method(request, "POST")
            answer = enroll.handle(world, plan, name, request, peer)
            return ok(to_base64(answer), f"{CERTS_ONLY}; smime-type=certs-only", BASE64)
        case "serverkeygen" as name:
            raise Refused(501, f"{name} is not implemented here")
        case _:
            raise Refused(404, "no such EST operation or label")


def _certificates(world: World, plan: FaultPlan) -> HttpResponse:
    chain = world.domain.cacerts
    if plan.due("cacerts", "no-certificates"):
        chain = ()
    elif plan.due("cacerts", "foreign-anchor"):
        chain = world.impostor.cacerts
    elif plan.due("cacerts", "leaf-anchor"):
        chain = (world.domain.registrar.certificate,)
    return ok(to_base64(certificates_only(chain)), CERTS_ONLY, BASE64)


def _wishes(world: World) -> HttpResponse:
    template = world.est.template
    if template is None:
        return HttpResponse(204)
    if template == "absent":
        raise Refused(404, "no attributes are asked for")
    return ok(to_base64(encode_csrattrs(template, world.est.style)), "application/csrattrs", BASE64)
