"""Revocation of our own certificate (RFC 9483 §4.2): signed by itself, never under a secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from holdfast.wire.cmp import bodies
from holdfast.wire.cmp.bodies import WHOLE_MESSAGE
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.protection import Signer
from holdfast.wire.cmp.requests import revocation_request
from holdfast.wire.cmp.transaction import Refusal, Transaction, Waiting
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.model import Exchange, Moment, Pending, Rejected
from holdfast.wire.revocation.reason import Reason


@dataclass(frozen=True, slots=True)
class Revoked:
    """The CA has revoked the certificate, or will; ``notice`` is what it said besides."""

    notice: str = ""


def revoke(
    transaction: Transaction, certificate: x509.Certificate, reason: Reason, now: Moment
) -> Exchange[Revoked | Pending | Rejected]:
    """Have *certificate* revoked, or revived by REMOVE_FROM_CRL.

    Raises LocalProtocolError ``cmp.rr-signer`` unless the transaction is signed by the certificate itself, or
    by what is alive of the same holder where it is to be revived.
    """
    protector = transaction.protector
    if not isinstance(protector, Signer) or protector.chain[0] != certificate:
        detail = "a revocation is signed by the certificate that it revokes"
        raise LocalProtocolError("cmp.rr-signer", detail, clause="RFC 9483 §4.2")
    content = revocation_request(certificate, reason)
    answer = yield from transaction.ask(Body.RR, content, now, expected=(Body.RP,))
    return _judge(transaction, answer)


def revoke_again(
    transaction: Transaction, token: bytes, now: Moment
) -> Exchange[Revoked | Pending | Rejected]:
    """Ask whether it is done, after Pending with *token*."""
    transaction.restore(token)
    answer = yield from transaction.poll(WHOLE_MESSAGE, now, expected=(Body.RP,))
    return _judge(transaction, answer)


def _judge(transaction: Transaction, answer: Message | Waiting | Refusal) -> Revoked | Pending | Rejected:
    if isinstance(answer, Waiting):
        return Pending(answer.after or timedelta(0), transaction.token("rr"))
    if isinstance(answer, Refusal):
        return _refused(answer)
    statuses = bodies.read_revocation_reply(answer.content).statuses
    if len(statuses) != 1:
        detail = f"{len(statuses)} statuses about one certificate"
        raise RemoteProtocolError("cmp.body", detail, clause="RFC 9483 §4.2")
    status = statuses[0]
    if status.status == bodies.Status.WAITING:
        return Pending(timedelta(0), transaction.token("rr"))
    if not status.granted:
        return _refused(Refusal(status, status.describe()))
    return Revoked(status.describe())


def _refused(refusal: Refusal) -> Revoked | Rejected:
    """What is revoked already need not be revoked: an answer may have been lost before."""
    if refusal.status.has(bodies.Failure.CERT_REVOKED):
        return Revoked(refusal.text)
    return refusal.outcome()
