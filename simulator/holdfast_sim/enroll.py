"""simpleenroll and simplereenroll: is this client allowed to have this certificate?"""

from __future__ import annotations

import base64
import hashlib

from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.wire import oids
from holdfast.wire.csr import challenge_password, parse
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest

from . import issue
from .access import require_user
from .answers import Peer, Refused, require_type
from .clients import Client, Kind, identify
from .der import from_base64, tlv
from .faults import FaultPlan
from .world import MAX_RECORDS, World


def handle(world: World, plan: FaultPlan, operation: str, request: HttpRequest, peer: Peer) -> bytes:
    """The certs-only answer, DER. Raises Refused."""
    require_type(request, "application/pkcs10")
    client = identify(world, peer)
    name = _authorise(world, operation, client, request)
    try:
        csr = parse(from_base64(request.body))
        challenge = challenge_password(csr)
    except HoldfastError as error:
        raise Refused(400, f"the certificate request is not usable: {error}") from error
    _check_link(world, challenge, peer)
    if fault := plan.take(operation, "refuse"):
        raise Refused(fault.number("code", 403), "refused by policy (a simulated fault)")
    subject, san = csr.subject, alternative_names(csr)
    if operation == "simplereenroll":
        assert client is not None
        subject, san = _renewed_names(client, csr)
    elif client is not None and client.kind is Kind.IDEVID:
        check_own_serial(client, csr)
        subject = subject if subject.rdns else client.certificate.subject
    _await_approval(world, name, request.body)
    certificate, answer = issue.fulfil(
        world, plan, operation, issue.order(world, csr.public_key(), subject, san)
    )
    world.note_issued(certificate, operation, name)
    return answer


def _authorise(world: World, operation: str, client: Client | None, request: HttpRequest) -> str:
    """Who asks, as a name for the records. A certificate is enough unless users are demanded."""
    if operation == "simplereenroll" and client is None:
        raise Refused(401, "re-enrollment needs the current certificate in TLS")
    if client is not None and not world.est.users_only:
        return client.name
    user = require_user(world, request)
    return client.name if client is not None else user


def _await_approval(world: World, name: str, body: bytes) -> None:
    """Somebody must look at each request; the same request by the same client is the same request."""
    if not world.est.polls:
        return
    key = hashlib.sha256(name.encode() + b"\0" + from_base64(body)).digest()
    made = world.pending.pop(key, 0)
    if made >= world.est.polls:
        return
    world.pending[key] = made + 1
    while len(world.pending) > MAX_RECORDS:
        del world.pending[next(iter(world.pending))]
    raise Refused(202, "waiting for approval", ("Retry-After", str(world.est.retry_after)))


def _check_link(world: World, challenge: str | None, peer: Peer) -> None:
    """Proof of possession linked to this TLS connection (RFC 7030 §3.5)."""
    template = world.est.template
    wanted = template is not None and template != "absent" and template.link_tls_unique
    if challenge is None:
        if wanted:
            raise Refused(400, "the request lacks the challengePassword with tls-unique")
        return
    if peer.tls_unique is None:
        raise Refused(400, "challengePassword on a connection without tls-unique (TLS 1.3)")
    if challenge != base64.b64encode(peer.tls_unique).decode():
        raise Refused(400, "challengePassword is not the tls-unique of this connection")


def check_own_serial(client: Client, csr: x509.CertificateSigningRequest) -> None:
    for attribute in csr.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER):
        if attribute.value != client.serial_number:
            raise Refused(403, "the subject names the serial number of another device")


def _renewed_names(
    client: Client, csr: x509.CertificateSigningRequest
) -> tuple[x509.Name, tuple[x509.GeneralName, ...]]:
    """RFC 7030 §4.2.2: the names stay, unless ChangeSubjectName says what they shall become."""
    current = client.certificate
    if csr.subject != current.subject:
        raise Refused(403, "the subject differs from the current certificate's")
    san = alternative_names(csr)
    if set(san) != set(alternative_names(current)):
        raise Refused(403, "the subjectAltName differs from the current certificate's")
    change = _change_of_subject(csr)
    if change is None:
        return csr.subject, san
    return change[0] or csr.subject, change[1] if change[1] is not None else san


def alternative_names(
    holder: x509.CertificateSigningRequest | x509.Certificate,
) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


class _ChangeSubjectName(core.Sequence):  # type: ignore[misc]
    """RFC 6402 §2.8."""

    _fields = [  # noqa: RUF012
        ("subject", asn1_x509.Name, {"optional": True}),
        ("subject_alt", asn1_x509.GeneralNames, {"implicit": 1, "optional": True}),
    ]


def _change_of_subject(
    csr: x509.CertificateSigningRequest,
) -> tuple[x509.Name | None, tuple[x509.GeneralName, ...] | None] | None:
    try:
        attribute = csr.attributes.get_attribute_for_oid(x509.ObjectIdentifier(oids.CHANGE_SUBJECT_NAME))
        whole = tlv(0x30, attribute.value)  # cryptography takes the tag off
        change = _ChangeSubjectName.load(whole, strict=True)
        subject, names = _as_name(change["subject"]), _as_names(change["subject_alt"])
    except x509.AttributeNotFound:
        return None
    except (ValueError, TypeError) as error:
        raise Refused(400, "the ChangeSubjectName attribute cannot be read") from error
    if subject is None and names is None:
        raise Refused(400, "the ChangeSubjectName attribute names nothing that is understood")
    return subject, names


def _as_name(value: core.Asn1Value) -> x509.Name | None:
    if isinstance(value, core.Void):
        return None
    parts = [
        x509.RelativeDistinguishedName(
            x509.NameAttribute(x509.ObjectIdentifier(part["type"].dotted), str(part["value"].native))
            for part in rdn
        )
        for rdn in value.chosen
    ]
    return x509.Name(parts)


def _as_names(value: core.Asn1Value) -> tuple[x509.GeneralName, ...] | None:
    if isinstance(value, core.Void):
        return None
    names: list[x509.GeneralName] = []
    for entry in value:
        if entry.name != "dns_name":
            raise Refused(400, "only DNS names can be changed to")
        names.append(x509.DNSName(str(entry.native)))
    return tuple(names)
