"""A certificate request in the form that a Full PKI Request carries (RFC 10002 §3.2.1.2).

What is asked for is the PKCS#10 that the device keeps. Where something must stand in it that is known only
when it is sent (a POP link, a change of names), the key signs anew, and everything else stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptography import x509

from holdfast.wire import crmf, der
from holdfast.wire.algorithms import sign_data
from holdfast.wire.cmc.controls import ChangeSubjectName
from holdfast.wire.cmc.messages import Crmf, Pkcs10, Request, reading
from holdfast.wire.cmc.settings import Form, Possession
from holdfast.wire.cmc.vocabulary import POP_LINK_WITNESS, POP_LINK_WITNESS_V2
from holdfast.wire.der import Cursor
from holdfast.wire.identified import Info
from holdfast.wire.message_signatures import signature_algorithm
from holdfast.wire.model import SigningKey
from holdfast.wire.oids import CHANGE_SUBJECT_NAME, EXTENSION_REQUEST

NUMBER: Final = 1
"""The bodyPartID of our one request; a Simple PKI Request is referred to by it, too (RFC 10002 §6.1.1)."""

SUBJECT_ALT_NAME: Final = "2.5.29.17"


def build(
    csr: bytes,
    key: SigningKey,
    form: Form,
    attributes: Iterable[Info] = (),
    *,
    possession: Possession = Possession.SIGNATURE,
) -> Request:
    """The request for what *csr* (DER, parsed before) asks for, with *attributes* in it."""
    extra = tuple(attributes)
    if form is Form.CRMF or possession is Possession.DECRYPTION:
        template = crmf.template_of(csr)
        if possession is Possession.DECRYPTION:
            return Crmf(NUMBER, crmf.request_to_be_challenged(NUMBER, template, controls=extra))
        return Crmf(NUMBER, crmf.request(NUMBER, template, key, controls=extra))
    return Pkcs10(NUMBER, signed_anew(csr, key, extra) if extra else csr)


def signed_anew(csr: bytes, key: SigningKey, attributes: Iterable[Info]) -> bytes:
    """The PKCS#10 *csr* with *attributes* besides its own."""
    version, subject, public_key, present = _parts(csr)
    added = [der.sequence(der.oid(a.oid), der.tlv(der.SET, a.value)) for a in attributes]
    info = der.sequence(version, subject, public_key, der.explicit(0, *sorted((*present, *added))))
    return _signed(info, key)


def under_present_names(csr: bytes, key: SigningKey, current: x509.Certificate) -> bytes:
    """The PKCS#10 *csr* under the names that *current* has, with its own as a ChangeSubjectName (§7.1)."""
    version, subject, public_key, present = _parts(csr)
    wanted = ChangeSubjectName(subject if _filled(subject) else b"", _alternative_of(present))
    kept = [_with_alternative(each, _present_alternative(current)) for each in present]
    change = der.sequence(der.oid(CHANGE_SUBJECT_NAME), der.tlv(der.SET, wanted.encode()))
    attributes = sorted((*(each for each in kept if each), change))
    name = current.subject.public_bytes()
    return _signed(der.sequence(version, name, public_key, der.explicit(0, *attributes)), key)


def link_of(request: Request) -> Info | None:
    """The POP link witness (new or old) in *request*, if it has one. Raises RemoteProtocolError
    ``cmc.syntax``."""
    wanted = (POP_LINK_WITNESS_V2, POP_LINK_WITNESS)
    with reading("certificate request"):
        if isinstance(request, Crmf):
            found = crmf.read_request(der.read_one(request.message))
            return next((c for c in found.controls if c.oid in wanted), None)
        if isinstance(request, Pkcs10):
            for attribute in _parts(request.csr)[3]:
                cursor = der.read_one(attribute)
                if (oid := cursor.oid()) in wanted:
                    values = cursor.inside(der.SET)
                    value = values.any()
                    values.close()
                    return Info(oid, value)
    return None


def _parts(csr: bytes) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
    info = der.read_one(der.read_one(csr).any())
    version, subject, public_key = info.any(), info.any(), info.any()
    attributes = tuple(each.any() for each in info.inside(0xA0).each()) if info.more else ()
    return version, subject, public_key, attributes


def _signed(info: bytes, key: SigningKey) -> bytes:
    algorithm, digest = signature_algorithm(key)
    return der.sequence(info, algorithm.encode(), der.bits(sign_data(key, info, digest)))


def _filled(name: bytes) -> bool:
    return Cursor(name).inside().more


def _alternative_of(attributes: tuple[bytes, ...]) -> bytes:
    """The GeneralNames that the extension request asks for; empty if none."""
    for extension in _extensions(attributes):
        oid, value = _extension(extension)
        if oid == SUBJECT_ALT_NAME:
            return value
    return b""


def _extensions(attributes: tuple[bytes, ...]) -> list[bytes]:
    for attribute in attributes:
        cursor = der.read_one(attribute)
        if cursor.oid() == EXTENSION_REQUEST:
            return [each.any() for each in cursor.inside(der.SET).inside().each()]
    return []


def _extension(encoded: bytes) -> tuple[str, bytes]:
    cursor = der.read_one(encoded)
    oid = cursor.oid()
    if cursor.peek() == der.BOOLEAN:
        cursor.any()
    return oid, cursor.octets()


def _with_alternative(attribute: bytes, alternative: bytes) -> bytes:
    """An attribute as it was, but an extension request with *alternative* (an encoded Extension) in it."""
    if der.read_one(attribute).oid() != EXTENSION_REQUEST:
        return attribute
    others = [e for e in _extensions((attribute,)) if _extension(e)[0] != SUBJECT_ALT_NAME]
    extensions = [*others, alternative] if alternative else others
    if not extensions:
        return b""
    return der.sequence(der.oid(EXTENSION_REQUEST), der.tlv(der.SET, der.sequence(*extensions)))


def _present_alternative(current: x509.Certificate) -> bytes:
    try:
        found = current.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return b""
    critical = der.tlv(der.BOOLEAN, b"\xff") if found.critical else b""
    return der.sequence(der.oid(SUBJECT_ALT_NAME), critical, der.octets(found.value.public_bytes()))
