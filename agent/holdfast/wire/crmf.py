"""Certificate requests and templates (RFC 4211). All tags of this module are IMPLICIT, except on a Name.

What is asked for is read out of a PKCS#10 request, which the device keeps anyway: subject, public key and
extensions go into the template as they stand there, and the key signs anew (RFC 4211 §4.1).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Final

from asn1crypto import csr as asn1_csr
from cryptography import x509

from holdfast.wire import der
from holdfast.wire.algorithms import sign_data
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.der import Cursor, reading
from holdfast.wire.identified import Algorithm, Info, read_algorithm, read_infos
from holdfast.wire.message_signatures import signature_algorithm
from holdfast.wire.model import SigningKey
from holdfast.wire.oids import EXTENSION_REQUEST

CLAUSE: Final = "RFC 4211 §3"


@dataclass(frozen=True, slots=True)
class Template:
    """CertTemplate. Values are encoded as outside of a template: ``subject`` a Name, ``public_key`` a
    SubjectPublicKeyInfo, ``extensions`` a SEQUENCE OF Extension; empty if absent."""

    serial_number: int | None = None
    issuer: bytes = b""
    subject: bytes = b""
    public_key: bytes = field(default=b"", repr=False)
    extensions: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        parts = []
        if self.serial_number is not None:
            parts.append(der.implicit(1, Cursor(der.integer(self.serial_number)).take(der.INTEGER)))
        if self.issuer:
            parts.append(der.explicit(3, self.issuer))
        if self.subject:
            parts.append(der.explicit(5, self.subject))
        if self.public_key:
            parts.append(der.explicit(6, Cursor(self.public_key).take(der.SEQUENCE)))
        if self.extensions:
            parts.append(der.explicit(9, Cursor(self.extensions).take(der.SEQUENCE)))
        return der.sequence(*parts)


def read_template(cursor: Cursor) -> Template:
    """The next value as CertTemplate. Raises ValueError."""
    inner = cursor.inside()
    found: dict[int, bytes] = {}
    last = -1
    for each in inner.each():
        tag = each.peek()
        number = tag & 0x1F
        if tag & 0xC0 != 0x80 or number > 9 or number <= last:
            raise ValueError(f"a template with the tag {tag:#04x}")
        last = number
        found[number] = each.take(tag)
    serial = found.get(1)
    return Template(
        serial_number=None if serial is None else Cursor(der.tlv(der.INTEGER, serial)).integer(),
        issuer=_one_name(found.get(3)),
        subject=_one_name(found.get(5)),
        public_key=der.sequence(found[6]) if 6 in found else b"",
        extensions=der.sequence(found[9]) if 9 in found else b"",
    )


def _one_name(content: bytes | None) -> bytes:
    if content is None:
        return b""
    cursor = Cursor(content)
    name = cursor.any()
    cursor.close()
    if name[0] != der.SEQUENCE:
        raise ValueError("a Name that is no SEQUENCE")
    return name


@dataclass(frozen=True, slots=True)
class CertRequest:
    """One CertReqMsg. ``signed`` is the DER of the CertRequest, ``proof`` algorithm and signature over it.

    ``ra_verified``: the sender claims to have verified possession itself. ``other_proof``: there is a proof
    of a kind that is not read.
    """

    request_id: int
    template: Template
    controls: tuple[Info, ...] = ()
    signed: bytes = field(default=b"", repr=False)
    proof: tuple[Algorithm, bytes] | None = field(default=None, repr=False)
    ra_verified: bool = False
    other_proof: bool = False

    def control(self, oid: str) -> Info | None:
        return next((c for c in self.controls if c.oid == oid), None)


def read_requests(content: bytes) -> tuple[CertRequest, ...]:
    """CertReqMessages. Raises RemoteProtocolError ``crmf.syntax``."""
    with reading("CertReqMessages", "crmf.syntax", CLAUSE):
        return tuple(read_request(each.inside()) for each in der.read_one(content).each())


def read_request(cursor: Cursor) -> CertRequest:
    """The members of one CertReqMsg. Raises ValueError."""
    signed = cursor.any()
    inner = der.read_one(signed)
    request_id, template = inner.integer(), read_template(inner)
    controls = read_infos(inner) if inner.more else ()
    inner.close()
    proof, verified, other = None, False, False
    match cursor.peek():
        case 0x80:
            verified = True
            cursor.any()
        case 0xA1:
            proof = _proof(cursor.inside(0xA1))
        case 0xA2 | 0xA3:
            other = True
            cursor.any()
    if cursor.more:
        cursor.inside()  # regInfo
    cursor.close()
    return CertRequest(request_id, template, controls, signed, proof, verified, other)


def _proof(cursor: Cursor) -> tuple[Algorithm, bytes]:
    if cursor.peek() == 0xA0:
        raise ValueError("poposkInput beside a template that has subject and key")
    algorithm, signature = read_algorithm(cursor), cursor.bits()
    cursor.close()
    return algorithm, signature


def template_of(csr: bytes) -> Template:
    """What a PKCS#10 asks for, in the octets that it uses."""
    info = asn1_csr.CertificationRequest.load(csr)["certification_request_info"]
    extensions = b""
    for attribute in info["attributes"]:
        if attribute["type"].native == "extension_request":
            extensions = attribute["values"][0].dump()
    return Template(
        subject=info["subject"].dump(),
        public_key=info["subject_pk_info"].dump(),
        extensions=extensions,
    )


def as_csr(template: Template) -> x509.CertificateSigningRequest:
    """What *template* asks for, as a PKCS#10 whose signature nobody made: only to be read.

    Raises RemoteProtocolError ``crmf.syntax``.
    """
    attributes = der.sequence(der.oid(EXTENSION_REQUEST), der.tlv(der.SET, template.extensions))
    info = der.sequence(
        der.integer(0),
        template.subject or der.sequence(),
        template.public_key,
        der.explicit(0, attributes if template.extensions else b""),
    )
    algorithm = der.sequence(der.oid("1.3.101.112"))
    with reading("CertTemplate", "crmf.syntax", CLAUSE):
        try:
            with warnings.catch_warnings():  # what the library warns of is a peer's to answer for
                warnings.simplefilter("ignore")
                found = x509.load_der_x509_csr(der.sequence(info, algorithm, der.bits(bytes(32))))
                _ = (found.subject, found.extensions, found.public_key())
        except LIBRARY_ERRORS as error:
            raise ValueError(str(error)) from error
    return found


def request(number: int, template: Template, key: SigningKey, *, controls: tuple[Info, ...] = ()) -> bytes:
    """One CertReqMsg; *key*, whose public part stands in *template*, signs the proof of possession."""
    signed = _cert_request(number, template, controls)
    algorithm, digest = signature_algorithm(key)
    proof = der.explicit(1, algorithm.encode(), der.bits(sign_data(key, signed, digest)))
    return der.sequence(signed, proof)


def request_to_be_challenged(number: int, template: Template, *, controls: tuple[Info, ...] = ()) -> bytes:
    """One CertReqMsg for a key that only decrypts: it will prove possession by a challenge (§4.2)."""
    proof = der.explicit(2, der.implicit(1, b"\x01"))  # keyEncipherment, subsequentMessage, challengeResp
    return der.sequence(_cert_request(number, template, controls), proof)


def _cert_request(number: int, template: Template, controls: tuple[Info, ...]) -> bytes:
    parts = [der.integer(number), template.encode()]
    if controls:
        parts.append(der.sequence(*(c.encode() for c in controls)))
    return der.sequence(*parts)
