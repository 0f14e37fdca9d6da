"""What a server does beside enrollment: revoke, and give certificates and CRLs (RFC 10002 §6.9 to §6.11)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from holdfast.wire.algorithms import accepted_key
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.answer import Reply
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest, get_crl
from holdfast.wire.cmc.conversation import Conversation, described
from holdfast.wire.cmc.outcome import refusal, worst
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Exchange, Moment, Rejected


@dataclass(frozen=True, slots=True)
class Revoked:
    """The CA has revoked the certificate; ``notice`` is what it said besides."""

    notice: str = ""


def revoke(conversation: Conversation, request: RevokeRequest, now: Moment) -> Exchange[Revoked | Rejected]:
    """Have a certificate revoked. Only a signed answer that says so counts.

    Raises RemoteProtocolError ``cmc.status`` for an answer that leaves it open.
    """
    reply = yield from conversation.ask([(words.REVOKE_REQUEST, request.encode())], now)
    status = worst(reply.statuses)
    if status is None or status.status is words.Status.SUCCESS:
        return Revoked(described(reply.statuses))
    if status.status in (words.Status.FAILED, words.Status.NO_SUPPORT):
        return refusal(status)
    detail = f"{status.describe()} in answer to a revocation"
    raise RemoteProtocolError("cmc.status", detail, clause="RFC 10002 §6.1.3")


def certificate(
    conversation: Conversation, issuer: x509.Certificate, serial: int, now: Moment
) -> Exchange[x509.Certificate | Rejected]:
    """The certificate that *issuer* issued under *serial*. Raises TrustError ``cmc.get-cert`` if it is
    another one or *issuer* did not sign it."""
    wanted = CertificateId(issuer.subject.public_bytes(), serial).wanted()
    reply = yield from conversation.ask([(words.GET_CERT, wanted)], now, simple=True)
    if (refused := _refused(reply)) is not None:
        return refused
    for found in reply.certificates:
        if found.serial_number == serial and _signed_by(found, issuer):
            return found
    raise TrustError("cmc.get-cert", "the answer is not the certificate that was asked for")


def revocation_list(
    conversation: Conversation, issuer: x509.Certificate, now: Moment
) -> Exchange[x509.CertificateRevocationList | Rejected]:
    """The newest CRL of *issuer*. Raises TrustError ``cmc.get-crl`` if *issuer* did not sign it or it has
    ended."""
    wanted = get_crl(issuer.subject)
    reply = yield from conversation.ask([(words.GET_CRL, wanted)], now, simple=True)
    if (refused := _refused(reply)) is not None:
        return refused
    if not reply.crls:
        raise TrustError("cmc.get-crl", "no CRL is in the answer", clause="RFC 10002 §6.10")
    return _crl(reply.crls[0], issuer, now)


def _crl(der: bytes, issuer: x509.Certificate, now: Moment) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        right = crl.issuer == issuer.subject and crl.is_signature_valid(accepted_key(issuer))
        end = crl.next_update_utc
    except (*LIBRARY_ERRORS, InvalidSignature) as error:
        raise TrustError("cmc.get-crl", f"unreadable: {str(error)[:200]}") from error
    if not right:
        raise TrustError("cmc.get-crl", "the CA did not sign this CRL")
    if end is not None and end < (now.now if now.trusted else now.floor):
        raise TrustError("cmc.get-crl", f"this CRL ended at {end}", clause="RFC 5280 §5.1.2.5")
    return crl


def _refused(reply: Reply) -> Rejected | None:
    status = worst(reply.statuses)
    return None if status is None or status.status is words.Status.SUCCESS else refusal(status)


def _signed_by(found: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        found.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
