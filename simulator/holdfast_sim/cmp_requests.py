"""Certificate requests by CMP: is this client allowed to have this certificate?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.wire import csr, der
from holdfast.wire.authorities import is_self_signed
from holdfast.wire.cmp import oids
from holdfast.wire.cmp.bodies import CertReply, CertResponse, Failure, Status, StatusInfo
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.protection import same_name
from holdfast.wire.cmp.requests import read_certificate_id
from holdfast.wire.crmf import CertRequest, as_csr, read_requests
from holdfast.wire.errors import HoldfastError
from holdfast.wire.identified import Info, named
from holdfast.wire.message_signatures import verify_by

from . import issue
from .answers import Refused
from .clients import Client, Kind
from .cmp_replies import CmpRefused, Due, Reply, encoded
from .domain import CMC_RA
from .enroll import alternative_names, check_own_serial
from .faults import FaultPlan

if TYPE_CHECKING:
    from .world import World

ANSWERS = {Body.IR: Body.IP, Body.CR: Body.CP, Body.P10CR: Body.CP, Body.KUR: Body.KUP}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, once it is known to be allowed."""

    request_id: int
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    subject: x509.Name
    san: tuple[x509.GeneralName, ...]


def read(world: World, message: Message, client: Client | None) -> Wanted:
    """The one request of *message*. *client* is None under a shared secret. Raises CmpRefused."""
    if message.kind is Body.P10CR:
        asked = _parsed(message.content)
        request_id = world.cmp.p10_request_id
    else:
        requests = read_requests(message.content)
        if len(requests) != 1:
            raise CmpRefused(Failure.BAD_REQUEST, "exactly one certificate is asked for at a time")
        request_id = requests[0].request_id
        asked = _proved(requests[0])
        if message.kind is Body.KUR:
            client = _updated(world, requests[0], client)
    public_key = asked.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise CmpRefused(Failure.BAD_ALG, "only RSA and EC keys get certificates")
    subject, san = asked.subject, alternative_names(asked)
    if message.kind is Body.KUR:
        assert client is not None
        current = client.certificate
        if subject != current.subject or set(san) != set(alternative_names(current)):
            raise CmpRefused(Failure.BAD_CERT_TEMPLATE, "an update keeps subject and subjectAltName")
    elif client is not None and client.kind is Kind.IDEVID:
        try:
            check_own_serial(client, asked)
        except Refused as refusal:
            raise CmpRefused(Failure.NOT_AUTHORIZED, refusal.text) from refusal
        subject = subject if subject.rdns else client.certificate.subject
    return Wanted(request_id, public_key, subject, san)


def _parsed(content: bytes) -> x509.CertificateSigningRequest:
    try:
        return csr.parse(content)
    except HoldfastError as error:
        raise CmpRefused(Failure.BAD_POP, f"the certificate request is not usable: {error}") from error


def _proved(request: CertRequest) -> x509.CertificateSigningRequest:
    if not request.template.public_key:
        raise CmpRefused(Failure.BAD_CERT_TEMPLATE, "keys are not made here")
    if request.proof is None:
        raise CmpRefused(Failure.BAD_POP, "possession of the key is not proved by a signature")
    asked = as_csr(request.template)
    algorithm, signature = request.proof
    try:
        verify_by(asked, algorithm, signature, request.signed)
    except HoldfastError as error:
        raise CmpRefused(Failure.BAD_POP, f"possession of the key is not proved: {error}") from error
    return asked


def _updated(world: World, request: CertRequest, client: Client | None) -> Client:
    """Whose certificate is updated: that which signed (RFC 9483 §4.1.3), or that which an RA speaks for."""
    if client is None or client.kind is not Kind.LDEVID:
        raise CmpRefused(Failure.NOT_AUTHORIZED, "an update is signed by the certificate that it updates")
    control = request.control(oids.OLD_CERT_ID)
    if control is None:
        return client
    issuer, serial = read_certificate_id(control.value)
    if speaks_for_others(client):
        found = next((i.certificate for i in world.issued if i.certificate.serial_number == serial), None)
        if found is None or serial in world.revoked:
            raise CmpRefused(Failure.BAD_CERT_ID, "oldCertID is no certificate of this CA")
        client = Client(found, Kind.LDEVID)
    current = client.certificate
    if serial != current.serial_number or not same_name(issuer, named(current.issuer)):
        raise CmpRefused(Failure.BAD_CERT_ID, "oldCertID is not the certificate that signed")
    return client


def speaks_for_others(client: Client) -> bool:
    """Whether *client* is a registration authority of this domain."""
    try:
        usages = client.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return CMC_RA in usages


def grant(
    world: World, plan: FaultPlan, due: Due, message: Message, wanted: Wanted, *, keyed: bool
) -> tuple[x509.Certificate, Reply]:
    """Issue, and say so."""
    certificate = issue.sign(
        world,
        plan,
        f"cmp-{message.kind.label}",
        issue.order(world, wanted.public_key, wanted.subject, wanted.san),
    )
    response = CertResponse(
        wanted.request_id + 7 if due("wrong-request-id") else wanted.request_id,
        StatusInfo(Status.ACCEPTED),
        None if due("no-certificate") else encoded(certificate)[0],
        private_key=due("central-key"),
    )
    responses = (response, response) if due("two-responses") else (response,)
    roots = tuple(c for c in world.domain.anchors if is_self_signed(c)) if keyed else ()
    if due("ca-pubs"):
        roots = world.impostor.anchors
    infos: tuple[Info, ...] = ()
    if _confirms_implicitly(world, message) and not due("no-implicit-echo"):
        infos = (Info(oids.IMPLICIT_CONFIRM, der.null()),)
    content = CertReply(responses, encoded(*roots)).encode()
    return certificate, Reply(ANSWERS[message.kind], content, infos, encoded(*world.domain.intermediates))


def _confirms_implicitly(world: World, message: Message) -> bool:
    return world.cmp.implicit_confirm and message.header.info(oids.IMPLICIT_CONFIRM) is not None


def refusal(kind: Body, request_id: int, refused: CmpRefused) -> Reply:
    """An ip, cp or kup that says no."""
    return Reply(ANSWERS[kind], CertReply((CertResponse(request_id, refused.status),)).encode())


def waiting(kind: Body, request_id: int) -> Reply:
    """An ip, cp or kup that asks for patience."""
    status = StatusInfo(Status.WAITING, ("somebody must look at this",))
    return Reply(ANSWERS[kind], CertReply((CertResponse(request_id, status),)).encode())
