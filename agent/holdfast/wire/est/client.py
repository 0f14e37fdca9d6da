"""The EST client (RFC 7030, RFC 8951, RFC 9908) as exchanges.

Outcomes by status: 200 is checked and Issued; 202, and 429 or 503 with Retry-After, are Pending; another
origin is Moved; 404, 405 and 501 are Rejected as unsupported, other 4xx are Rejected; what remains is a
RemoteProtocolError, which a caller repeats with growing distance.

After Pending the identical request is sent again (RFC 7030 §4.2.3). A CSR that is bound to its connection
(:func:`~holdfast.wire.est.request.link_challenge`) is stale on a new one: ``est.link-stale`` tells the caller
to sign anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final, NoReturn

from cryptography import x509

from holdfast.wire.authorities import accept_authorities
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.est import messages
from holdfast.wire.est.csrattrs import parse_csrattrs
from holdfast.wire.est.request import changes_names, check_request
from holdfast.wire.est.session import EstLimits, Session
from holdfast.wire.http import HttpCredentials, retry_after
from holdfast.wire.issued import NamePolicy, Terms, accept_issued
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentRequest,
    Exchange,
    HttpResponse,
    KeyAlgorithm,
    KeyDemand,
    Moment,
    Moved,
    Offer,
    Outcome,
    Pending,
    Purpose,
    RandomBytes,
    Rejected,
    TlsInfo,
)

_LIMITS: Final = EstLimits()
_UNSUPPORTED: Final = frozenset({404, 405, 501})
_NO_WISHES: Final = frozenset({204, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class EstProtocol:
    """EST at one server, with an optional CA label and an optional password.

    ``random`` makes the client nonces of Digest and must come with ``credentials``. ``initial_names`` and
    ``renewal_names`` say whether the CA may choose other names than the CSR asked for: at first enrollment
    a registration authority often does; a renewal keeps its names (RFC 7030 §4.2.2). A CSR with the
    ChangeSubjectName attribute leaves them to the server.

    Raises LocalProtocolError ``est.label`` and ``est.no-random`` when made.
    """

    name: ClassVar[str] = "est"

    label: str | None = None
    credentials: HttpCredentials | None = None
    limits: EstLimits = _LIMITS
    random: RandomBytes | None = field(default=None, repr=False)
    initial_names: NamePolicy = NamePolicy.SERVER_DECIDES
    renewal_names: NamePolicy = NamePolicy.EXACT

    def __post_init__(self) -> None:
        messages.path(messages.CACERTS, self.label)
        if self.credentials is not None and self.random is None:
            raise LocalProtocolError("est.no-random", "HTTP credentials need a source of randomness")

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:  # noqa: ARG002 - one shape for all
        """Every key that can sign its CSR will do."""
        return KeyDemand()

    def read_wishes(self, wishes: bytes) -> CsrTemplate:
        """The csrattrs answer *wishes* (DER) read again."""
        return parse_csrattrs(wishes) if wishes else CsrTemplate()

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:
        """CA certificates, roots first and newest first, and the wishes for the CSR.

        Raises RemoteProtocolError ``est.unsupported`` (no EST here), ``est.refused``, ``est.unavailable``
        and what reading the answers raises; LocalProtocolError ``est.not-authenticated``.
        """
        session = self._session(tls)
        authorities = yield from self._authorities(session, now)
        if isinstance(authorities, Moved):
            return authorities
        wishes = yield from session.ask(messages.fetch_request(messages.CSRATTRS, self.label))
        if isinstance(wishes, Moved):
            return wishes
        if wishes.status in _NO_WISHES:
            return Offer(authorities, CsrTemplate())
        if wishes.status != 200:
            raise self._unusable(messages.CSRATTRS, wishes, now)
        der = messages.read_csrattrs_body(wishes, limit=self.limits.body)
        return Offer(authorities, self.read_wishes(der), der)

    def authorities(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:
        """The CA certificates alone, as an offer without wishes. Raises what :meth:`discover` raises."""
        found = yield from self._authorities(self._session(tls), now)
        return found if isinstance(found, Moved) else Offer(found, CsrTemplate())

    def _authorities(self, session: Session, now: Moment) -> Exchange[Chain | Moved]:
        found = yield from session.ask(messages.fetch_request(messages.CACERTS, self.label))
        if isinstance(found, Moved):
            return found
        if found.status != 200:
            raise self._unusable(messages.CACERTS, found, now)
        certificates = messages.read_certs(found, limit=self.limits.body)
        limit = self.limits.ca_certificates
        return accept_authorities(certificates, limit=limit, prefix="est", clause="RFC 7030 §4.1.3")

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:
        """Send the CSR and judge the answer. A link that the wishes demand is checked before sending.

        Raises LocalProtocolError for a request that must not be sent, RemoteProtocolError for an answer
        that breaks the protocol, TrustError for a certificate that must not be used.
        """
        session = self._session(tls)
        asked = check_request(req, session.tls)
        resp = yield from session.ask(messages.enroll_request(_operation(req), req.csr, self.label))
        if isinstance(resp, Moved):
            return resp
        if resp.status == 200:
            certificates = messages.read_certs(resp, limit=self.limits.body)
            terms = Terms("est", "RFC 7030 §4.2.3", "RFC 7030 §4.2.2", self.limits.issued_certificates)
            return accept_issued(certificates, req, asked, self._names(req, asked), now, terms=terms)
        return self._not_issued(resp, now, _token(req))

    def resume(
        self, req: EnrollmentRequest, token: bytes, tls: TlsInfo | None, now: Moment
    ) -> Exchange[Outcome]:
        """Ask again after Pending: the identical request. Raises also LocalProtocolError ``est.resume``."""
        if token != _token(req):
            raise LocalProtocolError("est.resume", "the resume token belongs to another request")
        return (yield from self.enroll(req, tls, now))

    def serverkeygen(self) -> NoReturn:
        """Always refused: a key that a server made has left its hardware before it came there."""
        detail = "keys are made in their hardware; a key made by a server cannot be taken in"
        raise LocalProtocolError("est.serverkeygen", detail, clause="RFC 7030 §4.4")

    def _session(self, tls: TlsInfo | None) -> Session:
        if tls is None or not tls.authenticated:
            detail = "EST needs a server that was authenticated first"
            raise LocalProtocolError("est.not-authenticated", detail, clause="RFC 7030 §3.3")
        return Session(tls, self.credentials, self.random, self.limits)

    def _names(self, req: EnrollmentRequest, asked: x509.CertificateSigningRequest) -> NamePolicy:
        if req.purpose is Purpose.INITIAL:
            return self.initial_names
        return NamePolicy.SERVER_DECIDES if changes_names(asked) else self.renewal_names

    def _not_issued(self, resp: HttpResponse, now: Moment, token: bytes) -> Outcome:
        asked_wait = retry_after(resp, now)
        if resp.status == 202 or (resp.status in (429, 503) and asked_wait is not None):
            return Pending(self._clamped(asked_wait), token)
        refusal = messages.read_refusal(resp)
        if resp.status in _UNSUPPORTED:
            return Rejected("est.unsupported", str(refusal), unsupported=True)
        if resp.status in (401, 403):
            return Rejected("est.unauthorized", str(refusal), estranged=True)
        if 400 <= resp.status < 500 and resp.status not in (408, 429):
            return Rejected("est.rejected", str(refusal))
        raise RemoteProtocolError("est.unavailable", str(refusal), clause="RFC 7030 §4.2.3", busy=True)

    def _unusable(self, operation: str, resp: HttpResponse, now: Moment) -> RemoteProtocolError:
        detail = f"{operation}: {messages.read_refusal(resp)}"
        if resp.status in _UNSUPPORTED:
            clause = "RFC 7030 §3.2.2"
            return RemoteProtocolError("est.unsupported", detail, clause=clause, unsupported=True)
        busy = not 400 <= resp.status < 500 or resp.status in (408, 429)
        asked = retry_after(resp, now) if busy else None
        return RemoteProtocolError(
            "est.unavailable" if busy else "est.refused",
            detail,
            clause="RFC 7030 §4.1.3",
            busy=busy,
            retry_after=None if asked is None else self._clamped(asked),
        )

    def _clamped(self, wait: timedelta | None) -> timedelta:
        wanted = self.limits.default_wait if wait is None else wait
        return min(max(wanted, self.limits.shortest_wait), self.limits.longest_wait)


def _operation(req: EnrollmentRequest) -> str:
    return messages.SIMPLEENROLL if req.purpose is Purpose.INITIAL else messages.SIMPLEREENROLL


def _token(req: EnrollmentRequest) -> bytes:
    """Names the one request that may be repeated. The CSR itself is durable with the caller."""
    token = {"v": 1, "operation": _operation(req), "csr": hashlib.sha256(req.csr).hexdigest()}
    return json.dumps(token, sort_keys=True, separators=(",", ":")).encode()
