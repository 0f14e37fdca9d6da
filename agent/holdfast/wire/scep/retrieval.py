"""What GetCert and GetCRL bring (RFC 8894 §3.3.4, §3.3.5), checked: the CA must have signed it."""

from __future__ import annotations

from cryptography import x509

from holdfast.wire import cms
from holdfast.wire.model import Moment
from holdfast.wire.retrieved import certificate_of, crl_of


def certificate_in(content: bytes, ca: x509.Certificate, serial: int, *, limit: int) -> x509.Certificate:
    """The certificate with *serial* that *ca* signed. Raises TrustError ``scep.get-cert``, ``cms.*``."""
    return certificate_of(cms.parse_certs_only(content, limit=limit), ca, serial, "scep.get-cert")


def crl_in(
    content: bytes, ca: x509.Certificate, now: Moment, *, limit: int
) -> x509.CertificateRevocationList:
    """The CRL that *ca* signed and that has not ended. Raises TrustError ``scep.get-crl``, ``cms.*``."""
    return crl_of(cms.parse_crls(content, limit=limit)[0], ca, now, "scep.get-crl")
