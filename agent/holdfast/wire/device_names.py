"""Names of devices in certificates: PermanentIdentifier (RFC 4043), HardwareModuleName (RFC 4108 §5)."""

from __future__ import annotations

from asn1crypto import core
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from holdfast.wire import oids
from holdfast.wire.errors import RemoteProtocolError


class _PermanentIdentifier(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012 - asn1crypto's way
        ("identifier_value", core.UTF8String, {"optional": True}),
        ("assigner", core.ObjectIdentifier, {"optional": True}),
    ]


class _HardwareModuleName(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012 - asn1crypto's way
        ("hw_type", core.ObjectIdentifier),
        ("hw_serial_num", core.OctetString),
    ]


def hardware_module_name(serial_number: str, hardware_type: str) -> x509.OtherName:
    """The otherName of a hardware module (RFC 4108 §5); *hardware_type* is a dotted OID."""
    der = _HardwareModuleName({"hw_type": hardware_type, "hw_serial_num": serial_number.encode()}).dump()
    return x509.OtherName(ObjectIdentifier(oids.HARDWARE_MODULE_NAME), der)


def permanent_identifier(value: str, assigner: str | None = None) -> x509.OtherName:
    """The otherName for *value*, as it goes into a SAN or a CSR."""
    fields = {"identifier_value": value} | ({"assigner": assigner} if assigner else {})
    der = _PermanentIdentifier(fields).dump()
    return x509.OtherName(ObjectIdentifier(oids.PERMANENT_IDENTIFIER), der)


def permanent_identifiers(san: x509.SubjectAlternativeName) -> frozenset[str]:
    """Every identifierValue of *san*'s PermanentIdentifiers; an absent one names nobody.

    Raises RemoteProtocolError ``certificate.permanent-identifier``.
    """
    found = set()
    for other in san.get_values_for_type(x509.OtherName):
        if other.type_id.dotted_string != oids.PERMANENT_IDENTIFIER:
            continue
        try:
            value = _PermanentIdentifier.load(other.value, strict=True)["identifier_value"].native
        except (ValueError, TypeError) as error:
            raise RemoteProtocolError(
                "certificate.permanent-identifier", f"cannot be read: {error}"[:200], clause="RFC 4043 §2"
            ) from error
        if value is not None:
            found.add(str(value))
    return frozenset(found)
