"""Loading certificates from strangers: strict, complete at once, and silent."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.model import Chain

CERTIFICATE_LIMIT: Final = 65536
LIBRARY_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises, at loading or lazily, about a certificate that it cannot read."""


def load(der: bytes, *, limit: int = CERTIFICATE_LIMIT) -> x509.Certificate:
    """Load one DER certificate, with all that the library would parse lazily.

    Raises :class:`RemoteProtocolError` (``certificate.too-large``, ``certificate.syntax``).
    """
    if len(der) > limit:
        detail = f"{len(der)} octets, at most {limit} are read"
        raise RemoteProtocolError("certificate.too-large", detail)
    try:
        with warnings.catch_warnings():  # what the library warns of it still loads; we judge for ourselves
            warnings.simplefilter("ignore")
            loaded = x509.load_der_x509_certificate(der)
            _ = (loaded.extensions, loaded.subject, loaded.issuer)
            _ = (loaded.not_valid_before_utc, loaded.not_valid_after_utc)
            if loaded.serial_number <= 0:
                raise ValueError("a serial number that is not positive")
    except LIBRARY_ERRORS as error:
        detail = f"unreadable certificate: {str(error)[:300]}"
        raise RemoteProtocolError("certificate.syntax", detail, clause="RFC 5280 §4.1") from error
    return loaded


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer* is named as the issuer of *certificate*, and its key signed it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *LIBRARY_ERRORS):
        return False
    return True


def load_all(encoded: Iterable[bytes]) -> Chain:
    """Load several DER certificates, in order. Raises as :func:`load` does."""
    return tuple(map(load, encoded))
