"""ACME renewal information (RFC 9773): when the CA would like to see a certificate renewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from holdfast.wire.acme.jose import b64
from holdfast.wire.acme.objects import RenewalInfo, read
from holdfast.wire.acme.session import Session
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.model import Exchange, RenewalHint

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(days=1)
USUAL: Final = timedelta(hours=6)
"""Between two questions: what the server asks for, within bounds (RFC 9773 §4.3)."""


def certificate_id(certificate: x509.Certificate) -> str:
    """The certificate's name in ARI: key identifier and serial number, unpadded (RFC 9773 §4.1).

    A leading zero octet of the serial number stays. Raises LocalProtocolError ``ari.no-key-identifier``.
    """
    try:
        aki = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        identifier = aki.key_identifier
    except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
        identifier = None
    if identifier is None:
        detail = "the certificate has no AuthorityKeyIdentifier with a key identifier"
        raise LocalProtocolError("ari.no-key-identifier", detail, clause="RFC 9773 §4.1")
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # DER INTEGER: a sign bit is always there
    return f"{b64(identifier)}.{b64(octets)}"


def ask(session: Session, certificate: x509.Certificate) -> Exchange[RenewalHint | None]:
    """The server's suggestion for *certificate*; None where it has none to give.

    *session* has its directory open; the question is not signed. Raises RemoteProtocolError ``ari.window``,
    and ``acme.*`` for an answer that cannot be read."""
    base = session.directory.renewalInfo if session.directory is not None else None
    if base is None:
        return None
    resp = yield from session.get(f"{base.rstrip('/')}/{certificate_id(certificate)}")
    if resp.status != 200:
        return None
    found = read(resp, RenewalInfo, "the renewal information", clause="RFC 9773 §4.2")
    start, end = (_utc(each) for each in (found.suggestedWindow.start, found.suggestedWindow.end))
    if end <= start:
        raise RemoteProtocolError("ari.window", f"from {start} to {end}", clause="RFC 9773 §4.2")
    asked = session.asked_wait(resp)
    again = USUAL if asked is None else min(max(asked, SHORTEST), LONGEST)
    return RenewalHint(start, end, again)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise RemoteProtocolError("ari.window", "a time without an offset", clause="RFC 3339 §5.6")
    return moment.astimezone(UTC)
