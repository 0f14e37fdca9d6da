"""What GetCert and GetCRL of SCEP and CMC bring, checked: the CA must have signed it.

*code* is what a TrustError says.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from holdfast.wire.algorithms import accepted_key
from holdfast.wire.certificates import LIBRARY_ERRORS, signed_by
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Moment


def certificate_of(
    found: Iterable[x509.Certificate], issuer: x509.Certificate, serial: int, code: str
) -> x509.Certificate:
    """The one with *serial* that *issuer* signed. Raises TrustError if there is none."""
    for each in found:
        if each.serial_number == serial and signed_by(each, issuer):
            return each
    raise TrustError(code, "the answer is not the certificate that was asked for")


def crl_of(der: bytes, issuer: x509.Certificate, now: Moment, code: str) -> x509.CertificateRevocationList:
    """The CRL in *der*, which *issuer* signed and which has not ended. Raises TrustError."""
    try:
        crl = x509.load_der_x509_crl(der)
        right = crl.issuer == issuer.subject and crl.is_signature_valid(accepted_key(issuer))
        end = crl.next_update_utc
    except (*LIBRARY_ERRORS, InvalidSignature) as error:
        raise TrustError(code, f"unreadable: {str(error)[:200]}") from error
    if not right:
        raise TrustError(code, "the CA did not sign this CRL")
    if end is not None and end < (now.now if now.trusted else now.floor):
        raise TrustError(code, f"this CRL ended at {end}", clause="RFC 5280 §5.1.2.5")
    return crl
