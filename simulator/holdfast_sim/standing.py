"""The domain's word on its certificates, over plain HTTP: OCSP (RFC 6960) and a CRL (RFC 5280)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from holdfast.wire.model import HttpRequest, HttpResponse

from . import ca
from .answers import Refused, ok, path_of
from .ca import Authority, Credential, Extensions, Validity
from .faults import FaultPlan
from .world import World

OCSP_PATH: Final = "/ocsp"
CRL_PATH: Final = "/crl"
PATHS: Final = frozenset({OCSP_PATH, CRL_PATH})
_DELEGATES: Final = ("delegate", "delegate-no-usage", "delegate-foreign", "delegate-expired")


def extensions(world: World) -> Extensions:
    """What an issued certificate says of where to ask, if the policy has a place."""
    policy, found = world.standing, list[tuple[x509.ExtensionType, bool]]()
    if policy.url and policy.ocsp:
        where = x509.UniformResourceIdentifier(policy.url + OCSP_PATH)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)
        found.append((x509.AuthorityInformationAccess([access]), False))
    if policy.url and policy.crl:
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(policy.url + CRL_PATH)], None, None, None
        )
        found.append((x509.CRLDistributionPoints([point]), False))
    return found


def handle(world: World, plan: FaultPlan, request: HttpRequest) -> HttpResponse:
    """Serve one request to the responder or for the list. Raises Refused."""
    if path_of(request) == CRL_PATH:
        return ok(crl(world, plan), "application/pkix-crl")
    if request.method != "POST":
        raise Refused(405, "only POST is served here", ("Allow", "POST"))
    try:
        asked = ocsp.load_der_ocsp_request(request.body)
        nonce = _nonce(asked)
    except ValueError as error:
        raise Refused(400, "no OCSP request") from error
    return ok(answer(world, plan, asked, nonce), "application/ocsp-response")


@dataclass(frozen=True, slots=True)
class _Statement:
    """What an answer will say; a fault changes one thing of it."""

    serial: int
    status: ocsp.OCSPCertStatus
    begins: datetime
    ends: datetime
    nonce: bytes | None
    signer: Credential
    delegate: bool


def answer(world: World, plan: FaultPlan, asked: ocsp.OCSPRequest, nonce: bytes | None) -> bytes:
    """DER of the answer to *asked*."""
    if plan.due("ocsp", "try-later"):
        later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
        return later.public_bytes(Encoding.DER)
    authority = _issuer(world, asked)
    now = world.now().replace(microsecond=0)
    revoked = asked.serial_number in world.revoked
    honest = _Statement(
        serial=asked.serial_number,
        status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
        begins=now,
        ends=now + world.standing.life,
        nonce=nonce,
        signer=authority.credential,
        delegate=False,
    )
    said = _delegated(world, plan, authority, _spoiled(world, plan, honest))
    der = _signed(asked, said)
    if plan.due("ocsp", "tampered"):
        at = der.rindex(said.serial.to_bytes((said.serial.bit_length() + 8) // 8, "big")) + 1
        der = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
    return der


def _spoiled(world: World, plan: FaultPlan, honest: _Statement) -> _Statement:
    day = timedelta(days=1)
    wrong: dict[str, _Statement] = {
        "wrong-nonce": replace(honest, nonce=world.random(32)),
        "no-nonce": replace(honest, nonce=None),
        "stale": replace(honest, begins=honest.begins - 9 * day, ends=honest.begins - 2 * day),
        "future": replace(honest, begins=honest.begins + day, ends=honest.ends + 2 * day),
        "other-certificate": replace(honest, serial=honest.serial ^ 1),
        "unknown": replace(honest, status=ocsp.OCSPCertStatus.UNKNOWN),
        "foreign-signer": replace(honest, signer=world.impostor.issuing.credential),
        "says-revoked": replace(honest, status=ocsp.OCSPCertStatus.REVOKED),
    }
    said = honest
    for kind, statement in wrong.items():
        if plan.due("ocsp", kind):
            changed = {
                name: getattr(statement, name)
                for name in _Statement.__dataclass_fields__
                if getattr(statement, name) != getattr(honest, name)
            }
            said = replace(said, **changed)
    return said


def _delegated(world: World, plan: FaultPlan, authority: Authority, said: _Statement) -> _Statement:
    """The same by a responder of its own, good or bad."""
    kind = next((k for k in _DELEGATES if plan.due("ocsp", k)), "delegate" if world.standing.delegate else "")
    if not kind:
        return said
    usage = (
        ExtendedKeyUsageOID.CLIENT_AUTH if kind == "delegate-no-usage" else ExtendedKeyUsageOID.OCSP_SIGNING
    )
    made_by = world.impostor.issuing if kind == "delegate-foreign" else authority
    begins = world.now() - timedelta(days=400 if kind == "delegate-expired" else 1)
    life = Validity.starting(begins, timedelta(days=30))
    made = made_by.credential_for(
        ca.name("Simulated OCSP Responder"), life, ca.end_entity(usage), world.standing.algorithm
    )
    return replace(said, signer=made, delegate=True)


def _signed(asked: ocsp.OCSPRequest, said: _Statement) -> bytes:
    revoked = said.status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=asked.issuer_name_hash,
        issuer_key_hash=asked.issuer_key_hash,
        serial_number=said.serial,
        algorithm=asked.hash_algorithm,
        cert_status=said.status,
        this_update=said.begins,
        next_update=said.ends,
        revocation_time=said.begins if revoked else None,
        revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, said.signer.certificate)
    if said.delegate:
        builder = builder.certificates([said.signer.certificate])
    if said.nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(said.nonce), critical=False)
    return builder.sign(said.signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _nonce(asked: ocsp.OCSPRequest) -> bytes | None:
    try:
        return asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def _issuer(world: World, asked: ocsp.OCSPRequest) -> Authority:
    """The CA of ours that *asked* is about. Raises Refused."""
    for authority in (world.domain.issuing, *(issuing for _, issuing in world.domain.former)):
        probe = ocsp.OCSPRequestBuilder()
        same = probe.add_certificate(authority.certificate, authority.certificate, asked.hash_algorithm)
        if same.build().issuer_key_hash == asked.issuer_key_hash:
            return authority
    raise Refused(404, "no CA of this domain")


def crl(world: World, plan: FaultPlan) -> bytes:
    """DER of the list of the present issuing CA."""
    authority = world.domain.issuing
    begins = world.now().replace(microsecond=0)
    if plan.due("crl", "stale"):
        begins -= timedelta(days=30)
    if plan.due("crl", "future"):
        begins += timedelta(days=1)
    issuer = authority.certificate.subject
    if plan.due("crl", "other-issuer"):
        issuer = ca.name("Another CA")
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    builder = builder.last_update(begins).next_update(begins + world.standing.life)
    for serial in sorted(world.revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begins)
        reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
        builder = builder.add_revoked_certificate(entry.add_extension(reason, critical=False).build())
    builder = builder.add_extension(x509.CRLNumber(int(begins.timestamp())), critical=False)
    if plan.due("crl", "delta"):
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    if plan.due("crl", "for-cas"):
        scope = x509.IssuingDistributionPoint(
            full_name=None,
            relative_name=None,
            only_contains_user_certs=False,
            only_contains_ca_certs=True,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )
        builder = builder.add_extension(scope, critical=True)
    key = authority.credential.key
    if plan.due("crl", "foreign-signer"):
        key = world.impostor.issuing.credential.key
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
