"""Single X.509 extensions outside a certificate, whole or with gaps that the client fills (RFC 9908 §3.4)."""

from __future__ import annotations

from typing import Final

from asn1crypto import core, parser
from cryptography import x509

from holdfast.wire import oids
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.est import asn1

SUBJECT_ALT_NAME: Final = "2.5.29.17"

_EMPTY_IP: Final = b"\x87\x00"
# mail, DNS, URI and IP entries without content, and the NULL-DN as directoryName
_EMPTY_NAMES: Final = frozenset({b"\x81\x00", b"\x82\x00", b"\x86\x00", _EMPTY_IP, b"\xa4\x02\x30\x00"})


# What a CSR needs besides its extensions; nothing looks at key and signature.
_ED25519: Final = asn1.sequence([core.ObjectIdentifier("1.3.101.112").dump()])
_BITS: Final = core.OctetBitString(bytes(32)).dump()
_PUBLIC_KEY: Final = asn1.sequence([_ED25519, _BITS])
_EXTENSION_REQUEST: Final = core.ObjectIdentifier(oids.EXTENSION_REQUEST).dump()


def given_part(oid: str, value: bytes | None) -> tuple[bytes | None, bool]:
    """What the server gave of an extension (None: nothing), and whether the client has to add to it.

    *value* is the DER inside the OCTET STRING. Raises ValueError if a SAN is not GeneralNames.
    """
    if value is None:
        return None, True
    if oid != SUBJECT_ALT_NAME:
        return value, False
    names = asn1.members(value)
    given = [name for name in names if name not in _EMPTY_NAMES]
    if len(given) == len(names):
        return value, False
    if not given:
        return None, True
    return asn1.sequence(given), True


def san_to_fill(oid: str, value: bytes) -> bytes:
    """The SAN *value* with an empty iPAddress at its end. Raises LocalProtocolError for another extension."""
    if oid != SUBJECT_ALT_NAME:
        raise LocalProtocolError("est.csrattrs-style", f"extension {oid} cannot be given in part")
    return asn1.sequence([*asn1.members(value), _EMPTY_IP])


def read_extension(oid: str, *, critical: bool, value: bytes) -> x509.Extension[x509.ExtensionType]:
    """One extension as the type that ``cryptography`` has for it, or UnrecognizedExtension.

    The library reads extensions only inside something larger, so they travel in an unsigned CSR.
    Raises RemoteProtocolError ``est.csrattrs``.
    """
    extension = asn1.Extension({"extn_id": oid, "critical": critical, "extn_value": value}).dump()
    attribute = asn1.sequence([_EXTENSION_REQUEST, _emit(0, 17, asn1.sequence([extension]))])
    info = asn1.sequence([b"\x02\x01\x00", asn1.sequence([]), _PUBLIC_KEY, _emit(2, 0, attribute)])
    carrier = asn1.sequence([info, _ED25519, _BITS])
    try:
        extensions = x509.load_der_x509_csr(carrier).extensions
    except (ValueError, x509.UnsupportedGeneralNameType) as e:
        detail = f"extension {oid} cannot be read: {e}"
        raise RemoteProtocolError("est.csrattrs", detail[:300], clause="RFC 9908 §3.2") from e
    return next(iter(extensions))


def _emit(class_: int, tag: int, contents: bytes) -> bytes:
    return bytes(parser.emit(class_, 1, tag, contents))
