"""What a server does beside enrollment: revoke, and give certificates and CRLs (RFC 10002 §6.9 to §6.11)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.answer import Reply
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest, get_crl
from holdfast.wire.cmc.conversation import Conversation, described
from holdfast.wire.cmc.outcome import refusal, worst
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Exchange, Moment, Rejected
from holdfast.wire.retrieved import certificate_of, crl_of


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
    return certificate_of(reply.certificates, issuer, serial, "cmc.get-cert")


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
    return crl_of(reply.crls[0], issuer, now, "cmc.get-crl")


def _refused(reply: Reply) -> Rejected | None:
    status = worst(reply.statuses)
    return None if status is None or status.status is words.Status.SUCCESS else refusal(status)
