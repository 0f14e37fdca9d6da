"""Enrollment over CMP, the lightweight profile (RFC 9483 §4.1, §4.4), as exchanges.

What must survive a power cut is handed to the caller as Pending before the next message leaves: a certificate
before it is confirmed, a wait before it is polled for. So the same transaction goes on afterwards. Where a
power cut ate the answer to a request, its repetition is told that the transaction is in use, and a fresh
transaction begins with the same key; its identifier follows from the durable one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import Any, ClassVar, Final, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates, csr, der
from holdfast.wire.algorithms import spki
from holdfast.wire.authorities import is_ca, is_self_signed
from holdfast.wire.cmp import bodies, oids, support
from holdfast.wire.cmp.bodies import (
    WHOLE_MESSAGE,
    CertReply,
    CertResponse,
    CertStatus,
    Failure,
    Status,
    StatusInfo,
)
from holdfast.wire.cmp.confirmation import certificate_hash
from holdfast.wire.cmp.kem_client import KemIdentity, KemProtector, agree, go_on
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.paths import check_path
from holdfast.wire.cmp.protection import SharedSecret, SignedByAuthority, Signer
from holdfast.wire.cmp.requests import P10_REQUEST_ID, REQUEST_ID, request_message
from holdfast.wire.cmp.template import read_wishes
from holdfast.wire.cmp.transaction import CmpLimits, Refusal, Server, Transaction, Waiting, pack, unpack
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.identified import Info
from holdfast.wire.issued import NamePolicy, Terms, accept_issued
from holdfast.wire.message_signatures import hash_of
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentRequest,
    Exchange,
    Issued,
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
    SigningKey,
    TlsInfo,
)

MOST_TRANSACTIONS: Final = 4
"""How many transactions of one request are tried before its refusals are believed."""

_ANSWER: Final = {Body.IR: Body.IP, Body.CR: Body.CP, Body.P10CR: Body.CP, Body.KUR: Body.KUP}


class Form(Enum):
    """How certificates are asked for. AUTO: ir at first, kur for a renewal."""

    AUTO = "auto"
    CR = "cr"
    P10CR = "p10cr"


@dataclass(frozen=True, slots=True)
class Inquirer:
    """Who asks before there is a request: an identity with the anchors that judge the answers."""

    signer: Callable[[], tuple[Chain, SigningKey]] = field(repr=False)
    anchors: Chain
    intermediates: Chain = ()


@dataclass(frozen=True, slots=True)
class CmpProtocol:
    """CMP at one server, signed by the device's identity or, with ``secret``, under a shared secret.

    ``pins`` name authorities by the SHA-256 of their key (:class:`SignedByAuthority`). ``inquirer`` asks for
    CA certificates and wishes before enrollment; without it and without ``secret`` nothing is asked.
    ``implicit_confirm`` asks the CA to do without certConf. Under a secret, roots that come with a
    certificate become anchors where there are none yet: who knows the secret speaks for the CA (RFC 9483
    §4.1.1). ``kem`` protects by a MAC whose key comes out of a KEM key, instead of a signature; answers are
    signed all the same.

    Raises LocalProtocolError ``cmp.path`` and ``cmp.kem`` when made.
    """

    name: ClassVar[str] = "cmp"

    server: Server = field(default_factory=Server)
    secret: SharedSecret | None = None
    pins: frozenset[bytes] = frozenset()
    form: Form = Form.AUTO
    pvno: int = 2
    implicit_confirm: bool = True
    limits: CmpLimits = field(default_factory=CmpLimits)
    random: RandomBytes | None = field(default=None, repr=False)
    inquirer: Inquirer | None = None
    kem: KemIdentity | None = None
    initial_names: NamePolicy = NamePolicy.SERVER_DECIDES
    renewal_names: NamePolicy = NamePolicy.EXACT

    def __post_init__(self) -> None:
        check_path(self.server.path)
        if self.kem is not None and self.secret is not None:
            raise LocalProtocolError("cmp.kem", "a KEM key and a shared secret cannot both protect")

    def read_wishes(self, wishes: bytes) -> CsrTemplate:
        """``Offer.wishes`` read again. Raises RemoteProtocolError ``cmp.syntax``."""
        return read_wishes(wishes)

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:  # noqa: ARG002
        """CA certificates and the wishes for the request, as far as the server tells any.

        A server need not know these questions (RFC 9483 §4.3): a refusal counts as no answer. Raises
        RemoteProtocolError ``cmp.unsupported`` (no CMP here), ``cmp.unavailable``, and as a transaction does.
        """
        if self.random is None or (self.inquirer is None and self.secret is None):
            return Offer((), CsrTemplate())
        found = yield from support.ask(self._inquiry(self.random), support.ca_certs(), now)
        if isinstance(found, Pending):
            raise RemoteProtocolError(
                "cmp.unavailable", "not ready", busy=True, retry_after=found.retry_after
            )
        authorities = () if isinstance(found, Rejected) else found
        wishes = yield from support.ask(self._inquiry(self.random), support.request_template(), now)
        if isinstance(wishes, support.Wishes):
            return Offer(authorities, wishes.template, wishes.encoded, authentic=True)
        return Offer(authorities, CsrTemplate(), authentic=True)

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:  # noqa: ARG002 - every key signs
        """CMP asks nothing of a key but that it signs."""
        return KeyDemand()

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:  # noqa: ARG002
        """Ask for the certificate and judge the answer.

        Raises LocalProtocolError for a request that must not be sent, RemoteProtocolError for an answer that
        breaks the protocol, TrustError for a message or certificate that must not be used.
        """
        case = self._case(req, now)
        infos = (Info(oids.IMPLICIT_CONFIRM, der.null()),) if self.implicit_confirm else ()
        outcome: Outcome = Rejected("cmp.rejected", "nothing was asked")
        pvno = self.pvno
        for attempt in range(MOST_TRANSACTIONS):
            transaction = self._transaction(req, _identifier(req.transaction, attempt), pvno)
            if isinstance(transaction.protector, KemProtector):
                transaction.id = req.random(16)  # a ciphertext of an earlier try is lost with its answer
                refusal = yield from agree(transaction, transaction.protector, now)
                if refusal is not None:
                    return refusal.outcome()
            answer = yield from transaction.ask(
                case.kind, case.content, now, expected=(_ANSWER[case.kind],), infos=infos
            )
            status, outcome = yield from self._judge(transaction, answer, case)
            if status is not None and pvno > 2 and status.has(Failure.UNSUPPORTED_VERSION):
                pvno = 2
            elif status is None or not status.has(Failure.TRANSACTION_ID_IN_USE, Failure.DUPLICATE_CERT_REQ):
                return outcome
        return outcome

    def resume(
        self,
        req: EnrollmentRequest,
        token: bytes,
        tls: TlsInfo | None,  # noqa: ARG002
        now: Moment,
    ) -> Exchange[Outcome]:
        """Go on after Pending: poll, or confirm. Raises also LocalProtocolError ``cmp.resume``."""
        case = self._case(req, now)
        transaction = self._transaction(req, b"", self.pvno)
        state = transaction.restore(token)
        if state.get("csr") != _fingerprint(req):
            raise LocalProtocolError("cmp.resume", "the resume token belongs to another request")
        if isinstance(transaction.protector, KemProtector):
            go_on(transaction, transaction.protector)
        match state["stage"]:
            case "poll":
                request_id = int(state["request"])
                answer = yield from transaction.poll(request_id, now, expected=(_ANSWER[case.kind],))
                return (yield from self._judge(transaction, answer, case))[1]
            case "confirm":
                held = _Held.of(state)
                content = _confirmation(transaction, held.leaf, held.request_id, None)
                answer = yield from transaction.ask(Body.CERT_CONF, content, now, expected=(Body.PKICONF,))
                return self._confirmed(transaction, answer, case, held)
            case "confirming":
                answer = yield from transaction.poll(WHOLE_MESSAGE, now, expected=(Body.PKICONF,))
                return self._confirmed(transaction, answer, case, _Held.of(state))
            case stage:
                raise LocalProtocolError("cmp.resume", f"no stage is called {stage!r}")

    def central_key_generation(self) -> NoReturn:
        """Always refused: a key that a server made has left its hardware before it came there."""
        detail = "keys are made in their hardware; a key made by a server cannot be taken in"
        raise LocalProtocolError("cmp.central-key", detail, clause="RFC 9483 §4.1.6")

    # --- the request --------------------------------------------------------------------------------

    def _case(self, req: EnrollmentRequest, now: Moment) -> _Case:
        try:
            asked = csr.parse(req.csr)
        except (RemoteProtocolError, TrustError) as error:
            raise LocalProtocolError("cmp.csr", f"the CSR cannot be sent: {error}") from error
        if spki(asked) != spki(req.key):
            raise LocalProtocolError("cmp.csr-key", "the CSR is not for the key of the request")
        kind, replaces = self._kind(req), None
        if kind is Body.KUR:
            if req.current is None or not req.current[0]:
                raise LocalProtocolError("cmp.no-current", "a renewal without a certificate to renew")
            replaces = req.current[0][0]

        def content() -> bytes:
            if kind is Body.P10CR:
                return req.csr
            return request_message(req.csr, req.key, replaces=replaces)

        return _Case(kind, content, req, asked, now)

    def _kind(self, req: EnrollmentRequest) -> Body:
        match self.form:
            case Form.P10CR:
                return Body.P10CR
            case Form.CR:
                return Body.CR
            case Form.AUTO:
                return Body.IR if req.purpose is Purpose.INITIAL else Body.KUR

    def _transaction(self, req: EnrollmentRequest, identifier: bytes, pvno: int) -> Transaction:
        """A key update is signed by the certificate that it updates, whatever else is configured."""
        updates = req.purpose is not Purpose.INITIAL and req.current is not None
        if self.secret is not None and not updates:
            judge = self.secret.verifier
            return Transaction(self.server, self.secret, judge, req.random, identifier, pvno, self.limits)
        if self.kem is not None and not updates:
            judge_signed = SignedByAuthority(req.anchors, self.pins, req.intermediates)
            key = KemProtector(self.kem)
            return Transaction(self.server, key, judge_signed, req.random, identifier, pvno, self.limits)
        identity = req.current if updates else req.signer
        if identity is None or not identity[0]:
            raise LocalProtocolError("cmp.no-identity", "no identity and no secret to protect messages with")
        verifier = SignedByAuthority(req.anchors, self.pins, req.intermediates)
        return Transaction(
            self.server, Signer(*identity), verifier, req.random, identifier, pvno, self.limits
        )

    def _inquiry(self, random: RandomBytes) -> Transaction:
        identifier = random(16)
        if self.secret is not None:
            verifier = self.secret.verifier
            return Transaction(self.server, self.secret, verifier, random, identifier, self.pvno, self.limits)
        assert self.inquirer is not None
        judge = SignedByAuthority(self.inquirer.anchors, self.pins, self.inquirer.intermediates)
        signer = Signer(*self.inquirer.signer())
        return Transaction(self.server, signer, judge, random, identifier, self.pvno, self.limits)

    # --- the answer ---------------------------------------------------------------------------------

    def _judge(
        self, transaction: Transaction, answer: Message | Waiting | Refusal, case: _Case
    ) -> Exchange[tuple[StatusInfo | None, Outcome]]:
        """The outcome, and the status of a refusal."""
        if isinstance(answer, Waiting):
            return None, _wait(transaction, case, answer.after, answer.request_id)
        if isinstance(answer, Refusal):
            return answer.status, answer.outcome()
        reply = bodies.read_cert_reply(answer.content)
        response = _only(reply, case.kind)
        if response.status.status == Status.WAITING:
            return None, _wait(transaction, case, None, response.request_id)
        if not response.status.granted:
            return response.status, Refusal(response.status, response.status.describe()).outcome()
        try:
            held = self._accept(answer, reply, response, case)
        except HoldfastError:
            yield from _decline(transaction, response, case.now)
            raise
        if self.implicit_confirm and answer.header.info(oids.IMPLICIT_CONFIRM) is not None:
            return None, self._checked(held, case)
        return None, Pending(timedelta(0), held.token(transaction, "confirm", case))

    def _accept(self, answer: Message, reply: CertReply, response: CertResponse, case: _Case) -> _Held:
        if response.private_key or response.encrypted:
            detail = "a key or an encrypted certificate came; our key is in its hardware and stays there"
            raise TrustError("cmp.central-key", detail, clause="RFC 9483 §4.1.6")
        if response.certificate is None:
            detail = "granted, and no certificate came"
            raise RemoteProtocolError("cmp.no-certificate", detail, clause="RFC 9810 §5.3.4")
        leaf = certificates.load(response.certificate)
        brought = certificates.load_all((*answer.extra_certs, *reply.ca_pubs))
        issuers = tuple(c for c in dict.fromkeys(brought) if is_ca(c) and c != leaf)
        held = _Held(leaf, issuers, self._published(reply, case.req), response.request_id)
        self._checked(held, case)
        return held

    def _published(self, reply: CertReply, req: EnrollmentRequest) -> Chain:
        """Roots of caPubs, where they may be believed and are needed (RFC 9810 §5.3.4)."""
        if req.anchors or self.secret is None:
            return ()
        return tuple(c for c in certificates.load_all(reply.ca_pubs) if is_ca(c) and is_self_signed(c))

    def _checked(self, held: _Held, case: _Case) -> Issued:
        req = case.req if case.req.anchors else replace(case.req, anchors=held.roots)
        names = self.initial_names if req.purpose is Purpose.INITIAL else self.renewal_names
        terms = Terms("cmp", "RFC 9483 §4.1.1", "RFC 9483 §4.1.3", self.limits.issued_certificates)
        return accept_issued((held.leaf, *held.issuers), req, case.asked, names, case.now, terms=terms)

    def _confirmed(
        self, transaction: Transaction, answer: Message | Waiting | Refusal, case: _Case, held: _Held
    ) -> Outcome:
        if isinstance(answer, Waiting):
            return Pending(answer.after or timedelta(0), held.token(transaction, "confirming", case))
        if isinstance(answer, Refusal) and not answer.status.has(Failure.CERT_CONFIRMED):
            return answer.outcome()
        if isinstance(answer, Message):
            bodies.read_confirmed(answer.content)
        return self._checked(held, case)


@dataclass(frozen=True, slots=True)
class _Case:
    """One enrollment: the body that asks, how its content is made, and what the answer is judged by."""

    kind: Body
    make: Callable[[], bytes]
    req: EnrollmentRequest
    asked: x509.CertificateSigningRequest
    now: Moment

    @property
    def content(self) -> bytes:
        """Made when it is sent: the proof of possession costs a use of the key."""
        return self.make()


@dataclass(frozen=True, slots=True)
class _Held:
    """A certificate that was granted and is not confirmed yet, with all that judges it again later."""

    leaf: x509.Certificate
    issuers: Chain
    roots: Chain
    request_id: int

    def token(self, transaction: Transaction, stage: str, case: _Case) -> bytes:
        """What survives a power cut until the confirmation is through."""
        return transaction.token(
            stage,
            csr=_fingerprint(case.req),
            chain=pack(c.public_bytes(Encoding.DER) for c in (self.leaf, *self.issuers)),
            roots=pack(c.public_bytes(Encoding.DER) for c in self.roots),
            request=self.request_id,
        )

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> _Held:
        """Raises LocalProtocolError ``cmp.resume``."""
        try:
            chain, roots, request_id = str(state["chain"]), str(state["roots"]), int(state["request"])
            leaf, *issuers = certificates.load_all(unpack(chain))
            return cls(leaf, tuple(issuers), certificates.load_all(unpack(roots)), request_id)
        except (KeyError, ValueError, RemoteProtocolError) as error:
            raise LocalProtocolError("cmp.resume", f"unusable resume token: {error}"[:300]) from error


def _wait(transaction: Transaction, case: _Case, after: timedelta | None, request_id: int) -> Pending:
    token = transaction.token("poll", csr=_fingerprint(case.req), request=request_id)
    return Pending(timedelta(0) if after is None else after, token)


def _decline(transaction: Transaction, response: CertResponse, now: Moment) -> Exchange[None]:
    """Tell the CA that its certificate is not taken, so that it can revoke it (RFC 9810 §5.3.18)."""
    if response.certificate is None:
        return
    text = ("the certificate is not acceptable",)
    status = StatusInfo(Status.REJECTION, text, frozenset({Failure.INCORRECT_DATA}))
    try:
        leaf = certificates.load(response.certificate)
        content = _confirmation(transaction, leaf, response.request_id, status)
        yield from transaction.ask(Body.CERT_CONF, content, now, expected=(Body.PKICONF,))
    except HoldfastError:
        return  # what was wrong with the certificate is the error that counts


def _only(reply: CertReply, kind: Body) -> CertResponse:
    if len(reply.responses) != 1:
        detail = f"{len(reply.responses)} responses to one request"
        raise RemoteProtocolError("cmp.responses", detail, clause="RFC 9483 §4.1.1")
    response = reply.responses[0]
    # Old servers answer p10cr with 0 (RFC 9810 §5.3.4 says -1).
    allowed = (P10_REQUEST_ID, REQUEST_ID) if kind is Body.P10CR else (REQUEST_ID,)
    if response.request_id not in allowed:
        detail = f"a response to request {response.request_id}"
        raise RemoteProtocolError("cmp.request-id", detail, clause="RFC 9810 §5.3.4")
    return response


def _confirmation(
    transaction: Transaction, leaf: x509.Certificate, request_id: int, status: StatusInfo | None
) -> bytes:
    digest, algorithm = certificate_hash(leaf)
    if algorithm is not None:
        transaction.pvno = 3
    value = hash_of(leaf.public_bytes(Encoding.DER), digest)
    return bodies.cert_confirm(CertStatus(value, request_id, status, algorithm))


def _identifier(durable: bytes, attempt: int) -> bytes:
    """The transaction identifier: the durable one at first, then what follows from it."""
    if attempt == 0 and len(durable) == 16:
        return durable
    return hashlib.sha256(durable + bytes((attempt,))).digest()[:16]


def _fingerprint(req: EnrollmentRequest) -> str:
    return hashlib.sha256(req.csr).hexdigest()
