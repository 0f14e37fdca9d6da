"""The CMP server's support messages and revocations."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import der
from holdfast.wire.cmp import bodies, oids
from holdfast.wire.cmp.bodies import Failure, RevocationReply, Status, StatusInfo
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.protection import same_name
from holdfast.wire.cmp.requests import read_revocations
from holdfast.wire.cmp.template import encode_wishes
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.identified import Info, directory_name, named

from .clients import Client, Kind
from .cmp_replies import CmpRefused, Due, Reply, encoded
from .cmp_requests import speaks_for_others

if TYPE_CHECKING:
    from .world import World

REMOVE_FROM_CRL = 8


def answer(world: World, due: Due, message: Message) -> Reply:
    """The genp to a genm. Raises CmpRefused for a question that nobody knows here."""
    infos = bodies.read_general(message.content)
    if len(infos) != 1:
        raise CmpRefused(Failure.BAD_REQUEST, "one question at a time")
    asked = infos[0]
    match asked.oid:
        case oids.CA_CERTS:
            found = Info(oids.CA_CERTS, der.sequence(*encoded(*_ca_certificates(world, due))))
        case oids.ROOT_CA_CERT:
            found = Info(oids.ROOT_CA_KEY_UPDATE, _root_update(world, due, asked.value))
        case oids.CERT_REQ_TEMPLATE:
            wishes = world.cmp.template
            found = Info(oids.CERT_REQ_TEMPLATE, b"" if wishes is None else encode_wishes(wishes))
        case oids.CRL_STATUS_LIST:
            crls = der.sequence(_crl(world))
            found = Info(oids.CRLS, crls)
        case _:
            raise CmpRefused(Failure.BAD_REQUEST, f"nothing is known about {asked.oid}")
    if due("wrong-info"):
        found = Info(oids.CONFIRM_WAIT_TIME, found.value)
    return Reply(Body.GENP, bodies.general(found))


def _ca_certificates(world: World, due: Due) -> tuple[x509.Certificate, ...]:
    if due("leaf-anchor"):
        return (world.domain.registrar.certificate,)
    if due("many-certificates"):
        return world.domain.cacerts * 20
    return world.domain.cacerts


def _root_update(world: World, due: Due, asked: bytes) -> bytes:
    """RootCaKeyUpdate for the root that is *asked* about; empty if it is the newest."""
    domain = world.domain
    old = next((c for c in domain.anchors if encoded(c)[0] == asked), None)
    if old is None:
        raise CmpRefused(Failure.BAD_CERT_ID, "that is no root of this domain")
    new = domain.anchors[0]
    if new == old:
        return b""
    foreign = due("foreign-root")
    if foreign:
        new = world.impostor.anchors[0]
    links = {(c.subject, c.issuer): c for c in domain.links}
    forward = links.get((domain.anchors[0].subject, old.subject))
    back = links.get((old.subject, domain.anchors[0].subject))
    if due("foreign-link"):
        forward = world.impostor.anchors[0]
    parts = list(encoded(new))
    if forward is not None and not due("unlinked-root"):
        parts.append(der.explicit(0, *encoded(forward)))
    if back is not None and not foreign:  # it would tell on the stranger
        parts.append(der.explicit(1, *encoded(new if due("wrong-back-link") else back)))
    return der.sequence(*parts)


def _crl(world: World) -> bytes:
    authority = world.domain.issuing
    now = world.now().replace(microsecond=0)
    builder = x509.CertificateRevocationListBuilder(
        authority.certificate.subject, now, now + timedelta(days=7)
    )
    for serial in sorted(world.revoked):
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now).build())
    return builder.sign(authority.credential.key, hashes.SHA256()).public_bytes(Encoding.DER)


def revoke(world: World, due: Due, message: Message, client: Client | None) -> Reply:
    """The rp to an rr. Raises CmpRefused."""
    if client is None or client.kind is not Kind.LDEVID:
        raise CmpRefused(Failure.NOT_AUTHORIZED, "a revocation is signed by the certificate that it revokes")
    try:
        details = read_revocations(message.content)
    except RemoteProtocolError as error:
        raise CmpRefused(Failure.BAD_DATA_FORMAT, error.detail) from error
    if len(details) != 1 or len(details[0].reasons) != 1:
        raise CmpRefused(Failure.BAD_REQUEST, "one certificate and one reason at a time")
    template, reason = details[0].template, details[0].reasons[0]
    certificate = client.certificate
    if speaks_for_others(client):
        serials = {i.certificate.serial_number: i.certificate for i in world.issued}
        certificate = serials.get(template.serial_number or 0, certificate)
    issuer = directory_name(template.issuer) if template.issuer else b""
    if template.serial_number != certificate.serial_number or not same_name(
        issuer, named(certificate.issuer)
    ):
        raise CmpRefused(Failure.BAD_CERT_ID, "that is not the certificate that signed")
    if reason == REMOVE_FROM_CRL:
        world.revoked.discard(certificate.serial_number)
    else:
        world.revoked.add(certificate.serial_number)
    statuses = (StatusInfo(Status.ACCEPTED),)
    return Reply(Body.RP, RevocationReply(statuses * 2 if due("two-statuses") else statuses).encode())
