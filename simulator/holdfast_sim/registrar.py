"""The registrar (RFC 8995 §5): checks a pledge, asks the MASA on its behalf, hears what became of it."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, oids
from holdfast.wire.brski.messages import (
    MEDIA_TYPE,
    TELEMETRY_TYPE,
    RegistrarVoucherRequest,
    Telemetry,
    VoucherRequest,
    aki,
)
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse

from .answers import Peer, Refused, header, ok, path_of, require_method, require_type
from .clients import Client, check_signer, identify, require_idevid
from .world import StatusReport, World

ROOT = "/.well-known/brski/"
Masa = Callable[[HttpRequest, Peer], HttpResponse]


def handle(world: World, masa: Masa, request: HttpRequest, peer: Peer) -> HttpResponse:
    """Serve one BRSKI request. *masa* carries a request to the MASA. Raises Refused."""
    match path_of(request).removeprefix(ROOT):
        case "requestvoucher":
            require_method(request, "POST")
            return _voucher(world, masa, request, peer)
        case "voucher_status" | "enrollstatus" as operation:
            require_method(request, "POST")
            return note_status(world, operation, request, peer)
        case _:
            raise Refused(404, "no such BRSKI operation")


def _voucher(world: World, masa: Masa, request: HttpRequest, peer: Peer) -> HttpResponse:
    require_type(request, MEDIA_TYPE)
    _check_accept(request)
    client = require_idevid(world, peer)
    asked = read_pledge_request(world, request.body, client, peer)
    response = masa(_ask_masa(world, request.body, asked, client), _as_client(world))
    if response.status == 200:
        return ok(response.body, MEDIA_TYPE)
    if response.status == 202:  # the MASA needs time, and so does the registrar (RFC 8995 §5.6)
        patience = response.header("Retry-After")
        return HttpResponse(202, () if patience is None else (("Retry-After", patience),))
    text = response.body.decode("utf-8", "replace").strip()
    if response.status in (403, 404):
        raise Refused(response.status, f"the MASA says: {text}")
    raise Refused(502, f"the MASA answered {response.status}: {text}")


def read_pledge_request(world: World, der: bytes, client: Client, peer: Peer) -> VoucherRequest:
    """The voucher request of the pledge behind *client*, once all of it holds. Raises Refused.

    RFC 8995 §5.3 wants 404 where validation fails; a proximity certificate that is not ours means that
    somebody stands between us and the pledge.
    """
    try:
        signed = cms.open_signed(der)
        asked = VoucherRequest.decode(signed.content)
    except HoldfastError as error:
        raise Refused(400, f"the voucher request is not usable: {error}") from error
    if signed.content_type not in (oids.CT_ANIMA_JSON_VOUCHER, oids.CT_DATA):
        raise Refused(406, f"the signed content is of the type {signed.content_type}")
    try:
        check_signer(world, signed.signer, signed.certificates)
    except HoldfastError as error:
        raise Refused(404, f"the voucher request is signed by a stranger: {error}") from error
    if signed.signer.public_key() != client.certificate.public_key():
        raise Refused(404, "the voucher request is not signed by the key of the TLS client certificate")
    if asked.serial_number != client.serial_number:
        raise Refused(404, "the serial number is not that of the TLS client certificate")
    own = peer.server_chain[0].public_bytes(Encoding.DER)
    if asked.proximity_registrar_cert != own:
        raise Refused(401, "proximity-registrar-cert is not this registrar's certificate")
    return asked


def _ask_masa(world: World, pvr: bytes, asked: VoucherRequest, client: Client) -> HttpRequest:
    registrar = world.domain.registrar
    request = RegistrarVoucherRequest(
        serial_number=client.serial_number,
        nonce=asked.nonce,
        assertion=asked.assertion,
        created_on=world.now(),
        idevid_issuer=aki(client.certificate),
        prior_signed_voucher_request=pvr,
    )
    body = cms.sign(
        request.encode(),
        oids.CT_ANIMA_JSON_VOUCHER,
        registrar.key,
        registrar.certificate,
        registrar.chain[1:],
        signing_time=world.now(),
    )
    headers = (("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE))
    return HttpRequest("POST", f"{ROOT}requestvoucher", headers, body)


def _as_client(world: World) -> Peer:
    """How the MASA sees our connection to it."""
    return Peer(world.domain.registrar.chain, world.manufacturer.masa.chain)


def note_status(world: World, operation: str, request: HttpRequest, peer: Peer) -> HttpResponse:
    """Telemetry (RFC 8995 §5.7, §5.9.4). Raises Refused."""
    require_type(request, TELEMETRY_TYPE)
    client = identify(world, peer)
    if client is None:
        raise Refused(401, "status is taken from known clients only")
    try:
        said = Telemetry.decode(request.body)
    except HoldfastError as error:
        raise Refused(400, f"the status cannot be read: {error}") from error
    report = StatusReport(
        operation, client.certificate, said.status, said.reason or "", said.reason_context or {}, world.now()
    )
    world.note_report(report)
    return HttpResponse(200, (("Content-Type", "text/plain; charset=utf-8"),), b"noted\n")


def _check_accept(request: HttpRequest) -> None:
    accept = header(request, "Accept")
    if accept is None:
        return
    offered = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if not offered & {MEDIA_TYPE, "application/*", "*/*"}:
        raise Refused(406, f"only {MEDIA_TYPE} is made here")
