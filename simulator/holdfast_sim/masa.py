"""The manufacturer's authority (RFC 8995 §5.5, §5.6, §5.8): it knows who owns a device, and vouches."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from holdfast.wire import cms, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.brski.messages import (
    MEDIA_TYPE,
    RegistrarVoucherRequest,
    Voucher,
    VoucherRequest,
    aki,
    serial_number,
)
from holdfast.wire.chain import Rule, validate
from holdfast.wire.cms import SignedContent
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import Chain, HttpRequest, HttpResponse

from . import vouchers
from .answers import Peer, Refused, ok, ok_json, path_of, require_method, require_type
from .clients import check_signer
from .faults import FaultPlan
from .registrar import ROOT
from .world import AuditEvent, World


@dataclass(frozen=True, slots=True)
class Claim:
    """A registrar's request that held: ``path`` is its chain, leaf first, topmost last."""

    registrar: RegistrarVoucherRequest
    pledge: VoucherRequest
    idevid: x509.Certificate
    path: Chain

    @property
    def domain_id(self) -> bytes:
        """SubjectKeyIdentifier of the domain's topmost certificate (RFC 8995 §5.8.2)."""
        extensions = self.path[-1].extensions
        return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def handle(world: World, plan: FaultPlan, request: HttpRequest, _peer: Peer) -> HttpResponse:
    """Serve one request of a registrar. Its signature, not its TLS, says who it is. Raises Refused."""
    operation = path_of(request).removeprefix(ROOT)
    if operation not in ("requestvoucher", "requestauditlog"):
        raise Refused(404, "no such MASA operation")
    require_method(request, "POST")
    require_type(request, MEDIA_TYPE)
    claim = read_claim(world, request.body)
    if operation == "requestauditlog":
        return _audit_log(world, claim)
    _claim_ownership(world, claim)
    voucher = _voucher(world, claim)
    event = AuditEvent(
        voucher.serial_number, world.now(), claim.domain_id, claim.pledge.nonce, voucher.assertion or ""
    )
    world.note_audit(event)
    return ok(vouchers.sign(world, plan, voucher), MEDIA_TYPE)


def read_claim(world: World, der: bytes) -> Claim:
    """Everything that RFC 8995 §5.5 asks a MASA to check. Raises Refused."""
    signed = _open(der, "registrar's")
    try:
        asked = RegistrarVoucherRequest.decode(signed.content)
    except HoldfastError as error:
        raise Refused(400, f"the registrar's voucher request: {error}") from error
    path = _registrar_path(world, signed)
    if asked.prior_signed_voucher_request is None:
        raise Refused(403, "prior-signed-voucher-request is missing; vouchers need a pledge that asks")
    prior = _open(asked.prior_signed_voucher_request, "pledge's")
    try:
        pledge = VoucherRequest.decode(prior.content)
        check_signer(world, prior.signer, prior.certificates)
        named, issuer = serial_number(prior.signer), aki(prior.signer)
    except HoldfastError as error:
        raise Refused(404, f"the pledge's voucher request: {error}") from error
    if not asked.serial_number == pledge.serial_number == named:
        raise Refused(403, "registrar, pledge and IDevID name different serial numbers")
    if asked.nonce != pledge.nonce:
        raise Refused(403, "registrar and pledge name different nonces")
    if asked.idevid_issuer is not None and asked.idevid_issuer != issuer:
        raise Refused(403, "idevid-issuer is not the issuer of the pledge's IDevID")
    _check_proximity(pledge, path)
    return Claim(asked, pledge, prior.signer, path)


def _open(der: bytes, whose: str) -> SignedContent:
    try:
        signed = cms.open_signed(der)
    except HoldfastError as error:
        raise Refused(400, f"the {whose} voucher request is not usable: {error}") from error
    if signed.content_type not in (oids.CT_ANIMA_JSON_VOUCHER, oids.CT_DATA):
        raise Refused(406, f"the {whose} signed content is of the type {signed.content_type}")
    return signed


def _registrar_path(world: World, signed: SignedContent) -> Chain:
    """The chain in the message is all a MASA has: its topmost certificate stands for the domain."""
    tops = tuple(c for c in signed.certificates if c.issuer == c.subject)
    try:
        return validate((signed.signer, *signed.certificates), tops, world.moment(), Rule.registrar())
    except HoldfastError as error:
        raise Refused(403, f"the signer is no registrar with a complete chain: {error}") from error


def _check_proximity(pledge: VoucherRequest, path: Chain) -> None:
    if pledge.proximity_registrar_cert is None:
        if pledge.assertion == "proximity":
            raise Refused(403, "the pledge asserts proximity without proximity-registrar-cert")
        return
    try:
        seen = x509.load_der_x509_certificate(pledge.proximity_registrar_cert)
    except ValueError as error:
        raise Refused(400, "proximity-registrar-cert cannot be read") from error
    if spki(seen) not in {spki(certificate) for certificate in path}:
        raise Refused(403, "the registrar that the pledge saw is not in the registrar's chain")


def _claim_ownership(world: World, claim: Claim) -> None:
    """The first domain that asks for an unclaimed device becomes its owner; another one is refused."""
    serial = claim.pledge.serial_number
    if serial not in world.ledger and not world.vouchers.open_ledger:
        raise Refused(404, f"no device with the serial number {serial!r} was made here")
    known = world.idevids.get(serial)
    if known is not None and known != claim.idevid.fingerprint(hashes.SHA256()).hex():
        raise Refused(403, f"the IDevID is not the one that {serial!r} left the factory with")
    domain = claim.domain_id.hex()
    owner = world.ledger.get(serial)
    if owner not in (None, domain):
        raise Refused(403, f"the device {serial!r} belongs to another owner")
    world.ledger[serial] = domain


def _voucher(world: World, claim: Claim) -> Voucher:
    pinned = vouchers.pinned(world, claim.path)
    nonceless = claim.pledge.nonce is None
    now = world.now()
    # A nonce makes the voucher fresh; without one only an end of its life does (RFC 8366 §5.3).
    expires = min(now + world.vouchers.life, pinned.not_valid_after_utc) if nonceless else None
    return Voucher(
        serial_number=claim.pledge.serial_number,
        pinned_domain_cert=pinned.public_bytes(vouchers.DER),
        nonce=claim.pledge.nonce,
        assertion="proximity" if claim.pledge.proximity_registrar_cert else "logged",
        created_on=now,
        expires_on=expires,
        idevid_issuer=aki(claim.idevid),
        domain_cert_revocation_checks=False,
    )


def _audit_log(world: World, claim: Claim) -> HttpResponse:
    serial = claim.pledge.serial_number
    if serial not in world.ledger:
        raise Refused(404, f"nothing is known of {serial!r}")
    if world.ledger[serial] not in (None, claim.domain_id.hex()):
        raise Refused(403, f"the device {serial!r} belongs to another owner")
    events = [event for event in world.audit if event.serial_number == serial]
    return ok_json({"version": "1", "events": [_entry(event) for event in events], "truncation": _WHOLE})


_WHOLE = {"nonced duplicates": "0", "nonceless duplicates": "0", "arbitrary": "0"}


def _entry(event: AuditEvent) -> dict[str, object]:
    return {
        "date": event.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "domainID": base64.b64encode(event.domain_id).decode(),
        "nonce": event.nonce,
        "assertion": event.assertion,
        "truncated": 0,
    }
