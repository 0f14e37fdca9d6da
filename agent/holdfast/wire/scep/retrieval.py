"""What GetCert and GetCRL bring (RFC 8894 §3.3.4, §3.3.5), checked: the CA must have signed it."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from holdfast.wire import cms
from holdfast.wire.algorithms import accepted_key
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Moment


def certificate_in(content: bytes, ca: x509.Certificate, serial: int, *, limit: int) -> x509.Certificate:
    """The certificate with *serial* that *ca* signed. Raises TrustError ``scep.get-cert``, ``cms.*``."""
    for found in cms.parse_certs_only(content, limit=limit):
        if found.serial_number == serial and _signed_by(found, ca):
            return found
    raise TrustError("scep.get-cert", "the answer is not the certificate that was asked for")


def crl_in(
    content: bytes, ca: x509.Certificate, now: Moment, *, limit: int
) -> x509.CertificateRevocationList:
    """The CRL that *ca* signed and that has not ended. Raises TrustError ``scep.get-crl``, ``cms.*``."""
    der = cms.parse_crls(content, limit=limit)[0]
    try:
        crl = x509.load_der_x509_crl(der)
        right = crl.issuer == ca.subject and crl.is_signature_valid(accepted_key(ca))
        end = crl.next_update_utc
    except (*LIBRARY_ERRORS, InvalidSignature) as error:
        raise TrustError("scep.get-crl", f"unreadable: {str(error)[:200]}") from error
    if not right:
        raise TrustError("scep.get-crl", "the CA did not sign this CRL")
    if end is not None and end < (now.now if now.trusted else now.floor):
        raise TrustError("scep.get-crl", f"this CRL ended at {end}", clause="RFC 5280 §5.1.2.5")
    return crl


def _signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
