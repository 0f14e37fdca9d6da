"""The IDevID certificate: who the device is for its whole life (IEEE 802.1AR-2018, RFC 8995 §2.3)."""

from __future__ import annotations

from datetime import datetime

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from holdfast.wire import csr, oids
from holdfast.wire.errors import ConfigError
from holdfast_factory.authority import NEVER_EXPIRES, Factory, Product, key_usage

_PRINTABLE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


class _HardwareModuleName(core.Sequence):  # type: ignore[misc]
    """RFC 4108 §5."""

    _fields = [("hw_type", core.ObjectIdentifier), ("hw_serial_num", core.OctetString)]  # noqa: RUF012


def check_serial(serial: str) -> None:
    """Raises ConfigError unless *serial* is a PrintableString of 1 to 64 characters (X.520)."""
    if not 1 <= len(serial) <= 64 or not set(serial) <= _PRINTABLE or serial != serial.strip():
        raise ConfigError(
            "factory.serial", f"{serial[:80]!r}: 1 to 64 characters of PrintableString", clause="X.520"
        )


def subject(product: Product, serial: str) -> x509.Name:
    """The IDevID's subject: organization, model, and the serial number that vouchers name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, product.organization),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, product.model),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
        ]
    )


def issue(factory: Factory, request: bytes, serial: str, now: datetime) -> x509.Certificate:
    """The IDevID certificate for the key that signed *request* (DER PKCS#10).

    Only the key is taken from the request: the factory alone says what a device is called. Raises the
    errors of :func:`holdfast.wire.csr.parse` if the request does not prove the key.
    """
    public = csr.parse(request).public_key()
    issuer = factory.idevid_ca
    unsigned = profile(
        factory.product,
        issuer.certificate,
        public,
        serial,
        number=x509.random_serial_number(),
        not_before=now,
    )
    return unsigned.sign(issuer.key, hashes.SHA256())


def profile(
    product: Product,
    issuer: x509.Certificate,
    public: CertificatePublicKeyTypes,
    serial: str,
    *,
    number: int,
    not_before: datetime,
    attests: bool = False,
) -> x509.CertificateBuilder:
    """All that an IDevID certificate says (IEEE 802.1AR-2018 §8); *number* is its own serial number.

    *attests*: an IAK's certificate, which says the same of the device and has the usage of attestation keys
    (TCG, TPM 2.0 Keys for Device Identity and Attestation §8). Raises ConfigError (serial).
    """
    check_serial(serial)
    module = _HardwareModuleName({"hw_type": product.hardware_type, "hw_serial_num": serial.encode()})
    name = x509.OtherName(x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), module.dump())
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(subject(product, serial))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(number)
        .not_valid_before(not_before)
        .not_valid_after(NEVER_EXPIRES)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer_key_id, critical=False)
    )
    if attests:
        usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oids.TCG_AIK_CERTIFICATE)])
        return unsigned.add_extension(usage, critical=False)
    masa = core.IA5String(product.masa_url).dump()
    return unsigned.add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.MASA_URL), masa), critical=False
    )
