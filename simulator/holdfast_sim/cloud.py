"""The maker's cloud registrar (draft-ietf-anima-brski-cloud-16): it knows the owner, and where he is found.

It sends a pledge on to the owner's registrar, or to a reseller's cloud, with 307; or it vouches itself, MASA
that it is, and names the EST server of an owner who has no registrar.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.wire.brski.messages import MEDIA_TYPE, Voucher, aki
from holdfast.wire.model import HttpRequest, HttpResponse

from . import registrar, vouchers
from .answers import Peer, Refused, header, ok, path_of, require_method, require_type
from .clients import require_idevid
from .faults import FaultPlan
from .world import World


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where devices are sent: ``redirects`` from the host that they asked to a URL; ``est_domain`` is said in
    a voucher to whoever is not sent on. With neither, nobody is known as owner."""

    redirects: dict[str, str] = field(default_factory=dict)
    est_domain: str = ""


def handle(world: World, plan: FaultPlan, cloud: Cloud, request: HttpRequest, peer: Peer) -> HttpResponse:
    """Serve one request of a pledge. Raises Refused: 401 while the owner is not known (§3.2 of the draft),
    404 for all but BRSKI, because it is no EST server."""
    operation = path_of(request).removeprefix(registrar.ROOT)
    require_method(request, "POST")
    if operation in ("voucher_status", "enrollstatus"):
        return registrar.note_status(world, operation, request, peer)
    if operation != "requestvoucher":
        raise Refused(404, "no such operation of a cloud registrar")
    require_type(request, MEDIA_TYPE)
    client = require_idevid(world, peer)
    asked = registrar.read_pledge_request(world, request.body, client, peer)
    if client.serial_number not in world.ledger:
        raise Refused(404, f"no device with the serial number {client.serial_number!r} was made here")
    host = (header(request, "Host") or "").partition(":")[0]
    if location := cloud.redirects.get(host):
        return HttpResponse(307, (("Location", location),))
    if not cloud.est_domain:
        raise Refused(401, "the owner of this device is not known yet")
    voucher = Voucher(
        serial_number=client.serial_number,
        pinned_domain_cert=vouchers.pinned(world, world.domain.registrar.chain).public_bytes(vouchers.DER),
        nonce=asked.nonce,
        assertion="proximity",
        created_on=world.now(),
        idevid_issuer=aki(client.certificate),
        domain_cert_revocation_checks=False,
        est_domain=cloud.est_domain,
    )
    return ok(vouchers.sign(world, plan, voucher), MEDIA_TYPE)
