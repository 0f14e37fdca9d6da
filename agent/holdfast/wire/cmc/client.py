"""Enrollment over CMC (RFC 10002, once RFC 5272) as exchanges.

Outcomes: a certificate that came is checked and Issued; pending and partial are Pending, as is
confirmRequired, so that the certificate is durable with the caller before it is confirmed; failed and
noSupport are Rejected with the reason in their code. A server that wants to see a key decrypt is answered in
the same exchange.

A lost answer is asked for by the same request under the same transaction identifier; a pending one by
queryPending, and by the request again where the server does not know the token any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from cryptography import x509

from holdfast.wire import csr, der
from holdfast.wire.authorities import is_ca
from holdfast.wire.cmc import challenge, proofs, requests
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.anchors import published
from holdfast.wire.cmc.answer import Judge, Reply
from holdfast.wire.cmc.controls import CertificateId, read_encrypted_pop
from holdfast.wire.cmc.conversation import Conversation, described
from holdfast.wire.cmc.messages import Request
from holdfast.wire.cmc.outcome import refusal, worst
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.settings import CmcLimits, Form, Legacy, Possession
from holdfast.wire.cmc.signer import Identity, RequestKey, Signer
from holdfast.wire.cmc.site import Site
from holdfast.wire.cmc.status import StatusInfo
from holdfast.wire.cmc.token import Token, fingerprint
from holdfast.wire.errors import (
    HoldfastError,
    KeyUnsuitable,
    LocalProtocolError,
    RemoteProtocolError,
    TrustError,
)
from holdfast.wire.identified import Info
from holdfast.wire.issued import NamePolicy, Terms, accept_issued, alternative_names
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentRequest,
    Exchange,
    Issued,
    KeyAlgorithm,
    KeyDemand,
    Moment,
    Offer,
    Outcome,
    Pending,
    Purpose,
    TlsInfo,
)

_SUBJECT_KEY_IDENTIFIER: Final = "2.5.29.14"
_RSA: Final = frozenset({KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072})
_Status: Final = words.Status


@dataclass(frozen=True, slots=True)
class CmcProtocol:
    """CMC at one server. Messages are signed by the device's identity or, with ``secret``, at first by the
    new key itself, with the secret as the proof of who it is.

    ``pins`` name authorities (:class:`Judge`). ``return_data``: ask for our own data back.
    ``initial_names`` and ``renewal_names`` say whether the CA may choose other names than were asked for.

    Raises LocalProtocolError ``cmc.form`` when made: a Simple PKI Request proves no identity.
    """

    name: ClassVar[str] = "cmc"

    site: Site = field(default_factory=Site)
    secret: SharedSecret | None = None
    pins: frozenset[bytes] = frozenset()
    form: Form = Form.PKCS10
    possession: Possession = Possession.SIGNATURE
    legacy: frozenset[Legacy] = frozenset()
    return_data: bool = True
    limits: CmcLimits = field(default_factory=CmcLimits)
    initial_names: NamePolicy = NamePolicy.SERVER_DECIDES
    renewal_names: NamePolicy = NamePolicy.EXACT

    def __post_init__(self) -> None:
        signs_itself = self.secret is not None or self.possession is Possession.DECRYPTION
        if self.form is Form.SIMPLE and (signs_itself or self.site.est):
            detail = "a simple request carries no secret and no challenge, and is not for EST's /fullcmc"
            raise LocalProtocolError("cmc.form", detail, clause="RFC 10002 §3.1")
        if self.secret is not None and self.possession is Possession.DECRYPTION:
            detail = "a key that only decrypts cannot sign a request under a shared secret"
            raise LocalProtocolError("cmc.form", detail, clause="RFC 10002 §3.2")

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:
        """Any key that signs; one that decrypts where possession is proved so.

        Raises KeyUnsuitable ``cmc.key-cannot-decrypt``.
        """
        if self.possession is Possession.SIGNATURE:
            return KeyDemand()
        if algorithm not in _RSA:
            detail = f"a {algorithm.value} key cannot decrypt a challenge; `key: {{algorithm: rsa2048}}` can"
            raise KeyUnsuitable("cmc.key-cannot-decrypt", detail, clause="RFC 10002 §6.7")
        return KeyDemand(decrypt=True)

    def read_wishes(self, wishes: bytes) -> CsrTemplate:  # noqa: ARG002 - one shape for all
        """The request must name its key by an identifier: its own signature refers to that."""
        return CsrTemplate(fill_extensions=(_SUBJECT_KEY_IDENTIFIER,))

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer]:  # noqa: ARG002
        """CMC has no question before a request; anchors come from the domain."""
        yield from ()
        return Offer((), self.read_wishes(b""))

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:  # noqa: ARG002
        """Ask for the certificate and judge the answer.

        Raises LocalProtocolError for a request that must not be sent, RemoteProtocolError for an answer that
        breaks the protocol, TrustError for a message or certificate that must not be used.
        """
        asked = _asked(req)
        conversation = self.conversation(req, asked)
        return (yield from self._request(conversation, req, asked, now))

    def resume(
        self,
        req: EnrollmentRequest,
        token: bytes,
        tls: TlsInfo | None,  # noqa: ARG002
        now: Moment,
    ) -> Exchange[Outcome]:
        """Go on after Pending: ask, or confirm. Raises also LocalProtocolError ``cmc.resume``."""
        asked, held = _asked(req), Token.read(token, req)
        conversation = self.conversation(req, asked)
        conversation.peer_nonce = held.peer_nonce
        if held.chain:
            return (yield from self._confirm(conversation, held.chain, req, asked, now))
        if not held.pending:  # a Simple PKI Request has no transaction to ask about
            return (yield from self._request(conversation, req, asked, now))
        query = (words.QUERY_PENDING, der.octets(held.pending))
        reply = yield from conversation.ask([query], now, simple=True)
        status = worst(reply.statuses)
        if status is not None and status.fail == words.FailInfo.BAD_CERT_ID:
            return (yield from self._request(conversation, req, asked, now))
        return (yield from self._judge(conversation, reply, req, asked, now, before=held))

    def conversation(self, req: EnrollmentRequest, asked: x509.CertificateSigningRequest) -> Conversation:
        """A transaction for *req*. Raises LocalProtocolError ``cmc.no-identity``."""
        return Conversation(
            site=self.site,
            signer=self._signer(req, asked),
            judge=Judge(req.anchors, req.intermediates, self.pins, self.legacy),
            random=req.random,
            transaction=int.from_bytes(req.transaction, "big"),
            data=bytes.fromhex(fingerprint(req))[:16] if self.return_data else b"",
            limits=self.limits,
        )

    # --- the request --------------------------------------------------------------------------------

    def _signer(self, req: EnrollmentRequest, asked: x509.CertificateSigningRequest) -> Signer:
        """A renewal is signed by the certificate that it renews, whatever else is configured."""
        if req.purpose is not Purpose.INITIAL:
            if req.current is None or not req.current[0]:
                raise LocalProtocolError("cmc.no-current", "a renewal without a certificate to renew")
            return Identity(*req.current)
        if self.secret is not None:
            return RequestKey.of(req.key, asked)
        if req.signer is None or not req.signer[0]:
            raise LocalProtocolError("cmc.no-identity", "no identity and no secret to prove who we are")
        return Identity(*req.signer)

    def _request(
        self,
        conversation: Conversation,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
    ) -> Exchange[Outcome]:
        if self.form is Form.SIMPLE:
            reply = yield from conversation.ask_simply(req.csr, now)
            return (yield from self._judge(conversation, reply, req, asked, now))
        request, controls = self._made(req, asked)
        reply = yield from conversation.ask(controls, now, requests=(request,), simple=True)
        hidden = _hidden(reply)
        if hidden is not None:
            reply = yield from self._prove(conversation, hidden, request, req, now)
        return (yield from self._judge(conversation, reply, req, asked, now))

    def _made(
        self, req: EnrollmentRequest, asked: x509.CertificateSigningRequest
    ) -> tuple[Request, list[tuple[str, bytes]]]:
        """The request, and the controls that prove who asks."""
        wanted = req.csr
        if req.purpose is not Purpose.INITIAL:
            assert req.current is not None
            if _renames(asked, req.current[0][0]):
                wanted = requests.under_present_names(wanted, req.key, req.current[0][0])
            return requests.build(wanted, req.key, self.form, possession=self.possession), []
        if self.secret is None:
            return requests.build(wanted, req.key, self.form, possession=self.possession), []
        link = req.random(words.LINK_SIZE)
        old = Legacy.V1 in self.legacy
        digest, mac = (proofs.SHA1, proofs.HMAC_SHA1) if old else (proofs.SHA256, proofs.HMAC_SHA256)
        linked = proofs.prove(self.secret.secret, link, digest, mac)
        witness = Info(
            words.POP_LINK_WITNESS if old else words.POP_LINK_WITNESS_V2,
            der.octets(linked.witness) if old else linked.encode(),
        )
        request = requests.build(wanted, req.key, self.form, (witness,))
        proof = proofs.prove(self.secret.material, der.sequence(request.encode()), digest, mac)
        controls = [
            (words.POP_LINK_RANDOM, der.octets(link)),
            (words.IDENTITY_PROOF, der.octets(proof.witness))
            if old
            else (words.IDENTITY_PROOF_V2, proof.encode()),
        ]
        if self.secret.identification:
            controls.append((words.IDENTIFICATION, der.text(self.secret.identification)))
        return request, controls

    def _prove(
        self, conversation: Conversation, hidden: bytes, request: Request, req: EnrollmentRequest, now: Moment
    ) -> Exchange[Reply]:
        """Decrypt the challenge and ask again; if it does not hold, say so and end (§6.7 step 3)."""
        sha1 = Legacy.SHA1 in self.legacy
        identifier = x509.SubjectKeyIdentifier.from_public_key(req.key.public_key()).digest
        try:
            asked = read_encrypted_pop(hidden)
            proof = challenge.answer(asked, request, req.key, req.random, identifier=identifier, sha1=sha1)
        except (TrustError, RemoteProtocolError):
            failed = StatusInfo(_Status.FAILED, ((requests.NUMBER,),), fail=words.FailInfo.POP_FAILED)
            yield from _told(conversation, failed, now)
            raise
        control = (words.DECRYPTED_POP, proof.encode())
        reply = yield from conversation.ask([control], now, requests=(request,), simple=True)
        if _hidden(reply) is not None:
            detail = "the server challenges again what was answered"
            raise RemoteProtocolError("cmc.challenge-again", detail, clause="RFC 10002 §6.7")
        return reply

    # --- the answer ---------------------------------------------------------------------------------

    def _judge(
        self,
        conversation: Conversation,
        reply: Reply,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
        *,
        before: Token | None = None,
    ) -> Exchange[Outcome]:
        status = worst(reply.statuses)
        match _Status.SUCCESS if status is None else status.status:
            case _Status.SUCCESS:
                _check_parts(reply)
                return self._accepted(reply.certificates, req, asked, now, reply)
            case _Status.CONFIRM_REQUIRED:
                assert status is not None
                return (yield from self._hold(conversation, reply, req, asked, now))
            case _Status.PENDING | _Status.PARTIAL:
                assert status is not None
                return self._wait(conversation, status, req, now, before)
            case _:
                assert status is not None
                return refusal(status)

    def _accepted(
        self,
        certificates: Chain,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
        reply: Reply | None = None,
    ) -> Issued:
        if not certificates:
            detail = f"granted, and no certificate came: {described(reply.statuses) if reply else ''}"
            raise RemoteProtocolError("cmc.no-certificate", detail, clause="RFC 10002 §4.2")
        names = self.initial_names if req.purpose is Purpose.INITIAL else self.renewal_names
        terms = Terms("cmc", "RFC 10002 §4.2", "RFC 10002 §6.3.3", self.limits.issued_certificates)
        told = None if reply is None else published(reply, now, sha1=Legacy.SHA1 in self.legacy)
        issued = accept_issued(certificates, req, asked, names, now, terms=terms)
        return issued if told is None else replace(issued, anchors=told.anchors)

    def _hold(
        self,
        conversation: Conversation,
        reply: Reply,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
    ) -> Exchange[Outcome]:
        """A certificate that must be confirmed: checked now, confirmed once it is durable."""
        try:
            issued = self._accepted(reply.certificates, req, asked, now, reply)
        except HoldfastError:
            refused = StatusInfo(_Status.FAILED, ((requests.NUMBER,),), "the certificate is not acceptable")
            yield from _told(conversation, replace(refused, fail=words.FailInfo.BAD_REQUEST), now)
            raise
        kept = tuple(dict.fromkeys((*issued.chain, *(c for c in reply.certificates if is_ca(c)))))
        token = Token(fingerprint(req), peer_nonce=conversation.peer_nonce, chain=kept)
        return Pending(self.limits.shortest_wait * 0, token.encode())

    def _confirm(
        self,
        conversation: Conversation,
        chain: Chain,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
    ) -> Exchange[Outcome]:
        issued = self._accepted(chain, req, asked, now)
        accepted = CertificateId.of(issued.chain[0]).accepted()
        success = StatusInfo(_Status.SUCCESS, ((requests.NUMBER,),))
        controls = [
            (words.STATUS_INFO_V2, success.encode()),
            (words.CONFIRM_CERT_ACCEPTANCE, accepted),
        ]
        reply = yield from conversation.ask(controls, now)
        status = worst(reply.statuses)
        if status is not None and status.status is not _Status.SUCCESS:
            return refusal(status)
        return issued

    def _wait(
        self,
        conversation: Conversation,
        status: StatusInfo,
        req: EnrollmentRequest,
        now: Moment,
        before: Token | None,
    ) -> Pending:
        """The token of an earlier answer holds where a later one has none (§6.13)."""
        pending = before.pending if before is not None else b""
        wait = self.limits.default_wait
        if status.pend is not None:
            pending = status.pend.token
            wait = status.pend.time - now.now if now.trusted else wait
        elif not pending and self.form is not Form.SIMPLE:
            detail = "pending without a token to ask again with"
            raise RemoteProtocolError("cmc.pend-info", detail, clause="RFC 10002 §6.1.1")
        token = Token(fingerprint(req), pending, conversation.peer_nonce)
        return Pending(min(max(wait, self.limits.shortest_wait), self.limits.longest_wait), token.encode())


def _asked(req: EnrollmentRequest) -> x509.CertificateSigningRequest:
    try:
        asked = csr.parse(req.csr)
    except (RemoteProtocolError, TrustError) as error:
        raise LocalProtocolError("cmc.csr", f"the CSR cannot be sent: {error}") from error
    if csr.public_bytes(asked) != csr.public_bytes(req.key):
        raise LocalProtocolError("cmc.csr", "the CSR is not for the key of the request")
    return asked


def _renames(asked: x509.CertificateSigningRequest, current: x509.Certificate) -> bool:
    return asked.subject != current.subject or alternative_names(asked) != alternative_names(current)


def _hidden(reply: Reply) -> bytes | None:
    """The challenge in an answer, if there is one."""
    control = None if reply.response is None else reply.response.control(words.ENCRYPTED_POP)
    return None if control is None else control.value


def _check_parts(reply: Reply) -> None:
    """A success must be about what was asked."""
    said = [s for s in reply.statuses if s.status is _Status.SUCCESS]
    if said and not any(s.about(requests.NUMBER) for s in said):
        detail = f"success of body part {said[0].parts[0]}, which is not the request"
        raise RemoteProtocolError("cmc.body-part", detail, clause="RFC 10002 §6.1.1")


def _told(conversation: Conversation, status: StatusInfo, now: Moment) -> Exchange[None]:
    """Tell the server of a failure on our side; what it says to that changes nothing."""
    try:
        yield from conversation.ask([(words.STATUS_INFO_V2, status.encode())], now, simple=True)
    except HoldfastError:
        return
