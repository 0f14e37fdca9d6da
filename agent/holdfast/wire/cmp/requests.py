"""The contents of ir, cr, kur and rr (RFC 9483 §4.1, §4.2), which are made of CRMF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from holdfast.wire import der
from holdfast.wire.cmp import oids
from holdfast.wire.cmp.message import reading
from holdfast.wire.crmf import Template, read_template, request, template_of
from holdfast.wire.der import Cursor
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.identified import Info, named
from holdfast.wire.model import SigningKey

REQUEST_ID: Final = 0
"""The certReqId of ir, cr and kur (RFC 9483 §4.1.1)."""

P10_REQUEST_ID: Final = -1
"""The certReqId in answers to p10cr (RFC 9483 §4.1.4)."""


def request_message(csr: bytes, key: SigningKey, *, replaces: x509.Certificate | None = None) -> bytes:
    """The content of ir, cr and, with the certificate that it *replaces*, kur.

    *csr* is a DER PKCS#10 that was parsed before; *key* signs the proof of possession. Raises
    LocalProtocolError ``cmp.no-subject`` for a request that names nothing.
    """
    wanted = template_of(csr)
    if not wanted.extensions and not Cursor(wanted.subject).take(der.SEQUENCE):
        detail = "neither a subject nor an alternative name is asked for"
        raise LocalProtocolError("cmp.no-subject", detail, clause="RFC 9483 §4.1.1")
    controls: tuple[Info, ...] = ()
    if replaces is not None:
        old = der.sequence(named(replaces.issuer), der.integer(replaces.serial_number))
        controls = (Info(oids.OLD_CERT_ID, old),)
    return der.sequence(request(REQUEST_ID, wanted, key, controls=controls))


def revocation_request(certificate: x509.Certificate, reason: int) -> bytes:
    """The content of rr: one certificate, exactly one reason (RFC 9483 §4.2)."""
    template = Template(serial_number=certificate.serial_number, issuer=certificate.issuer.public_bytes())
    value = der.octets(der.tlv(0x0A, bytes((reason,))))
    details = der.sequence(der.sequence(der.oid(oids.CRL_REASON), value))
    return der.sequence(der.sequence(template.encode(), details))


@dataclass(frozen=True, slots=True)
class RevocationDetails:
    """One RevDetails. ``reasons`` are the CRL reasons that were given: one is right."""

    template: Template
    reasons: tuple[int, ...]


def read_revocations(content: bytes) -> tuple[RevocationDetails, ...]:
    """The content of rr."""
    with reading("RevReqContent"):
        found = []
        for each in der.read_one(content).each():
            inner = each.inside()
            template = read_template(inner)
            reasons = _reasons(inner.inside()) if inner.more else ()
            inner.close()
            found.append(RevocationDetails(template, reasons))
        return tuple(found)


def _reasons(extensions: Cursor) -> tuple[int, ...]:
    found = []
    for each in extensions.each():
        inner = each.inside()
        oid = inner.oid()
        if inner.peek() == der.BOOLEAN:
            inner.any()
        value = Cursor(inner.octets())
        inner.close()
        if oid == oids.CRL_REASON:
            content = value.take(0x0A)
            value.close()
            if len(content) != 1:
                raise ValueError("an impossible CRLReason")
            found.append(content[0])
    return tuple(found)


def read_certificate_id(value: bytes) -> tuple[bytes, int]:
    """A CertId: the issuer as GeneralName, and the serial number."""
    with reading("CertId"):
        cursor = der.read_one(value)
        issuer, serial = cursor.any(), cursor.integer()
        cursor.close()
        return issuer, serial
