"""The factory's CA: it signs what the ledger has reserved, and nothing else.

A certificate's serial number, key and beginning stand in the ledger before the HSM is asked. If a station
dies in between, the next one asks for the same certificate again, so that what was lost differs from what
is kept by nothing but the random part of an ECDSA signature, and never left the station.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from holdfast.wire import certificates
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import RandomBytes
from holdfast_factory import idevid
from holdfast_factory.authority import Product
from holdfast_factory.line.book import Reservation
from holdfast_factory.line.entries import moment, timestamp
from holdfast_factory.unit import ProvedKeys, Purpose


def issuer_id(issuer: x509.Certificate) -> str:
    """Which CA: its key identifier in hex."""
    return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


def wanted(
    unit: str, keys: ProvedKeys, issuer: x509.Certificate, random: RandomBytes, now: datetime
) -> tuple[Reservation, ...]:
    """What to reserve for the *keys* of *unit*: 159 random bits are a serial number (RFC 5280 §4.1.2.2)."""
    start = timestamp(now.replace(microsecond=0))

    def one(purpose: Purpose, key: bytes) -> Reservation:
        number = f"{int.from_bytes(random(20), 'big') >> 1:x}"
        return Reservation(unit, purpose, issuer_id(issuer), number, key, start)

    idevid_only = (one(Purpose.IDEVID, keys.idevid),)
    return (*idevid_only, one(Purpose.IAK, keys.iak)) if keys.iak else idevid_only


@dataclass(frozen=True, slots=True)
class Issuer:
    """The CA: what its certificates say of every product, its own certificate, its key."""

    product: Product
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def sign(ca: Issuer, reserved: Reservation, serial: str) -> bytes:
    """The certificate (DER) that *reserved* promised to the device *serial*.

    Raises TrustError ``key.unsupported``, RemoteProtocolError ``key.syntax``.
    """
    try:
        loaded = load_der_public_key(reserved.public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("key.syntax", str(error)) from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise TrustError("key.unsupported", "an IDevID key is on a curve, or RSA")
    unsigned = idevid.profile(
        ca.product,
        ca.certificate,
        loaded,
        serial,
        number=int(reserved.x509_serial, 16),
        not_before=moment(reserved.not_before),
        attests=reserved.purpose is Purpose.IAK,
    )
    return unsigned.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


def check(product: Product, issuer: x509.Certificate, reserved: Reservation, der: bytes, serial: str) -> None:
    """That *der* is exactly what was reserved: signed by *issuer*, and each word of it as the profile wants.

    Raises TrustError ``factory.certificate``.
    """
    try:
        found = certificates.load(der)
        found.verify_directly_issued_by(issuer)
    except (HoldfastError, ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("factory.certificate", f"not signed by our CA: {error}") from error
    # A stand-in CA signs the same words; all but the signature must then be equal.
    stand_in = Issuer(product, issuer, ec.generate_private_key(ec.SECP256R1()))
    again = x509.load_der_x509_certificate(sign(stand_in, reserved, serial))
    if again.tbs_certificate_bytes != found.tbs_certificate_bytes:
        raise TrustError(
            "factory.certificate", "it does not say what was asked for", clause="IEEE 802.1AR §8"
        )
