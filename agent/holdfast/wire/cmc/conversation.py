"""One transaction with a CMC server: messages are made, sent, and their answers checked (RFC 10002 §6.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.wire import der
from holdfast.wire.cmc import answer
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.answer import Judge, Reply
from holdfast.wire.cmc.messages import Content, Control, PkiData, Request
from holdfast.wire.cmc.settings import CmcLimits
from holdfast.wire.cmc.signer import Signer
from holdfast.wire.cmc.site import Site, unusable
from holdfast.wire.cmc.status import StatusInfo
from holdfast.wire.errors import HoldfastError, RemoteProtocolError
from holdfast.wire.http import printable
from holdfast.wire.model import Exchange, HttpResponse, Moment, RandomBytes

FIRST_CONTROL = 1000
"""Controls are numbered from here, requests and contents below."""


@dataclass(slots=True)
class Conversation:
    """``transaction`` is the identifier, ``data`` what the server has to return (empty: nothing).

    ``peer_nonce`` is the server's last one: the next message repeats it.
    """

    site: Site
    signer: Signer
    judge: Judge
    random: RandomBytes = field(repr=False)
    transaction: int
    data: bytes = b""
    peer_nonce: bytes = b""
    limits: CmcLimits = field(default_factory=CmcLimits)

    def ask(
        self,
        controls: Iterable[tuple[str, bytes]],
        now: Moment,
        *,
        requests: tuple[Request, ...] = (),
        contents: tuple[Content, ...] = (),
        simple: bool = False,
    ) -> Exchange[Reply]:
        """Send a Full PKI Request. *simple*: the answer may be a Simple one.

        Raises what :meth:`Site.read`, :func:`answer.read` and :func:`answer.check` raise, and
        RemoteProtocolError ``cmc.simple-response``, ``cmc.http-status``.
        """
        nonce = self.random(words.NONCE_SIZE)
        data = PkiData(self._numbered(controls, nonce), requests, contents)
        resp = yield self.site.full(self.signer.sign(data.encode()))
        reply = self._read(resp, now)
        if reply.response is None:
            if not simple:
                detail = "certificates alone, where a status is needed"
                raise RemoteProtocolError("cmc.simple-response", detail, clause="RFC 10002 §3.2")
            return reply
        self.peer_nonce = answer.check(reply, self.transaction, nonce, self.data)
        return reply

    def ask_simply(self, csr: bytes, now: Moment) -> Exchange[Reply]:
        """Send a Simple PKI Request. A failure is Full and signed, but knows nothing of a transaction."""
        resp = yield self.site.simple(csr)
        return self._read(resp, now)

    def _numbered(self, controls: Iterable[tuple[str, bytes]], nonce: bytes) -> tuple[Control, ...]:
        own = [
            (words.TRANSACTION_ID, der.integer(self.transaction)),
            (words.SENDER_NONCE, der.octets(nonce)),
        ]
        if self.peer_nonce:
            own.append((words.RECIPIENT_NONCE, der.octets(self.peer_nonce)))
        if self.data:
            own.append((words.DATA_RETURN, der.octets(self.data)))
        return tuple(
            Control(number, oid, (value,))
            for number, (oid, value) in enumerate((*own, *controls), FIRST_CONTROL)
        )

    def _read(self, resp: HttpResponse, now: Moment) -> Reply:
        """A response that comes with an HTTP error counts if it is signed and says that it is one."""
        der_ = self.site.read(resp, now, self.limits.body)
        if resp.status == 200:
            return answer.read(der_, self.judge, now, limit=self.limits.body)
        try:
            reply = answer.read(der_, self.judge, now, limit=self.limits.body)
        except HoldfastError as error:
            raise unusable(resp, now) from error
        if reply.response is None or not any(status.status for status in reply.statuses):
            detail = f"HTTP {resp.status} around a response that is no failure"
            raise RemoteProtocolError("cmc.http-status", detail, clause="RFC 10003 §6")
        return reply


def described(statuses: Iterable[StatusInfo]) -> str:
    """What the statuses say, for a person."""
    return printable("; ".join(status.describe() for status in statuses))
