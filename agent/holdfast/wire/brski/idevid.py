"""What BRSKI reads from an IDevID certificate (RFC 8995 §2.3): serial number, issuer key id, MASA address."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import urlsplit

from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.wire import oids
from holdfast.wire.errors import RemoteProtocolError

_AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
_SUBJECT_ALT_NAME: Final = "2.5.29.17"
_URL_LIMIT: Final = 2048
_CLAUSE: Final = "RFC 8995 §2.3"


class _HardwareModuleName(core.Sequence):  # type: ignore[misc]
    """RFC 4108 §5; 802.1AR devices exist that leave the serial number out."""

    _fields = [("hw_type", core.ObjectIdentifier), ("hw_serial_num", core.OctetString, {"optional": True})]  # noqa: RUF012


def serial_number(certificate: x509.Certificate) -> str:
    """The device's serial number, for the ``serial-number`` leaf.

    Taken from the subject's serialNumber attribute (X.520), otherwise from HardwareModuleName: its text if
    it is printable, else its base64. Raises RemoteProtocolError ``idevid.serial-number``.
    """
    try:
        named = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    except ValueError as error:
        raise RemoteProtocolError("idevid.subject", "cannot be read", clause=_CLAUSE) from error
    if len(named) > 1:
        raise RemoteProtocolError("idevid.serial-number", "more than one in the subject", clause=_CLAUSE)
    found = str(named[0].value) if named else _hardware_serial(certificate)
    if not found:
        raise RemoteProtocolError("idevid.serial-number", "the certificate names none", clause=_CLAUSE)
    return found


def aki(certificate: x509.Certificate) -> bytes | None:
    """The AuthorityKeyIdentifier extension value: the complete DER SEQUENCE, for ``idevid-issuer``."""
    return extension(certificate, _AUTHORITY_KEY_IDENTIFIER)


def issuer_forms(value: bytes) -> frozenset[bytes]:
    """Every way to write ``idevid-issuer`` for the AuthorityKeyIdentifier *value* (see :func:`aki`).

    RFC 8366 can be read as the bare key identifier, the extension value, or that value with its OCTET STRING
    header, which the revision's own example shows. All name the same issuer, so a pledge accepts each.
    """
    try:
        key_identifier = asn1_x509.AuthorityKeyIdentifier.load(value, strict=True)["key_identifier"].native
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("idevid.aki", "cannot be read", clause="RFC 5280 §4.2.1.1") from error
    return frozenset({value, core.OctetString(value).dump(), key_identifier or value})


def masa_url(certificate: x509.Certificate) -> str | None:
    """Where the maker's MASA is, without a trailing slash: ``https://authority/.well-known/brski``.

    None if the certificate does not say. Raises RemoteProtocolError ``idevid.masa-url``.
    """
    value = extension(certificate, oids.MASA_URL)
    if value is None:
        return None
    try:
        parsed = core.load(value, strict=True)
        text = parsed.native if isinstance(parsed, core.IA5String | core.UTF8String) else ""
        complete = text if "/" in text else f"https://{text}/.well-known/brski"
        parts = urlsplit(complete)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0 and parts.username is None
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("idevid.masa-url", "cannot be read", clause="RFC 8995 §2.3.2") from error
    if not usable or len(text) > _URL_LIMIT or not text.isascii() or any(c <= " " for c in text):
        raise RemoteProtocolError("idevid.masa-url", ascii(text[:80]), clause="RFC 8995 §2.3.2")
    return complete.rstrip("/")


def extension(certificate: x509.Certificate, dotted: str) -> bytes | None:
    """The octets in extnValue of the extension *dotted*, exactly as issued, or None."""
    try:
        parsed = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
        for entry in parsed["tbs_certificate"]["extensions"] or ():
            if entry["extn_id"].dotted == dotted:
                return bytes(entry["extn_value"].contents)
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("idevid.extensions", "cannot be read", clause="RFC 5280 §4.1") from error
    return None


def _hardware_serial(certificate: x509.Certificate) -> str | None:
    value = extension(certificate, _SUBJECT_ALT_NAME)
    if value is None:
        return None
    try:
        for name in asn1_x509.GeneralNames.load(value, strict=True):
            if name.name == "other_name" and name.chosen["type_id"].dotted == oids.HARDWARE_MODULE_NAME:
                inner = name.chosen["value"].parsed.untag().dump()
                module = _HardwareModuleName.load(inner, strict=True).native
                return _serial_text(module["hw_serial_num"] or b"")
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("idevid.hardware-module", "cannot be read", clause="RFC 4108 §5") from error
    return None


def _serial_text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else base64.b64encode(octets).decode("ascii")
