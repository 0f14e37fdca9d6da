"""The little DER that the servers write by hand: a mistake of the client's codec is then not theirs."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import oids

from .answers import Refused


def certificates_only(certificates: Iterable[x509.Certificate], *, backwards: bool = False) -> bytes:
    """A degenerate SignedData (RFC 5652 §5, RFC 7030 §4.1.3): a SET, sorted as DER wants.

    *backwards* gives the opposite order, which servers in the field send just as well.
    """
    encoded = (certificate.public_bytes(Encoding.DER) for certificate in certificates)
    inner = tlv(0xA0, *sorted(encoded, reverse=backwards))
    content = tlv(0x30, core.ObjectIdentifier(oids.CT_DATA).dump())
    signed = tlv(0x30, b"\x02\x01\x01", tlv(0x31), content, inner, tlv(0x31))
    return tlv(0x30, core.ObjectIdentifier(oids.CT_SIGNED_DATA).dump(), tlv(0xA0, signed))


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def from_base64(body: bytes) -> bytes:
    """An EST body: base64 with any white space, whatever its transfer encoding says (RFC 8951 §3.1)."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError as error:
        raise Refused(400, "the body is not base64") from error


def to_base64(der: bytes) -> bytes:
    """Wrapped lines: libest and OpenSSL choke on one long one."""
    return base64.encodebytes(der)
