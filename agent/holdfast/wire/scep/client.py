"""The SCEP client (RFC 8894) as exchanges.

Outcomes: SUCCESS is checked and Issued; PENDING is Pending; FAILURE is Rejected with the failInfo in its
code; 404, 405 and 501 say that there is no SCEP here. A reply is believed only if a CA or RA certificate that
was authenticated in the same exchange signed it, for this transaction and this nonce, and it is decrypted
with the key that signed the request.

An answer that was lost is asked for again by the same PKCSReq under the same transactionID (§3.3.1); one that
is pending by CertPoll, and by the PKCSReq again where the server has forgotten the transaction.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import cms, csr
from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.errors import KeyUnsuitable, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.http import printable
from holdfast.wire.issued import NamePolicy, Terms, accept_issued
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentRequest,
    Exchange,
    KeyAlgorithm,
    KeyDemand,
    Moment,
    Offer,
    Outcome,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
    TlsInfo,
)
from holdfast.wire.scep import http, messages
from holdfast.wire.scep.authority import MOST_HELPERS, Trust
from holdfast.wire.scep.conversation import Asker, Manner, Reply, Server, meet
from holdfast.wire.scep.retrieval import certificate_in, crl_in
from holdfast.wire.scep.rollover import read_next
from holdfast.wire.scep.settings import Decryption, Legacy, ScepLimits
from holdfast.wire.scep.signer import Signer, self_signed
from holdfast.wire.scep.vocabulary import FailInfo, MessageType, PkiStatus

_LIMITS: Final = ScepLimits()
_SITE: Final = http.Site()
_TERMS: Final = Terms("scep", "RFC 8894 §3.3.2.1", "RFC 8894 §3.3.1.2", 8)
_RSA: Final = frozenset({KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072})


@dataclass(frozen=True, slots=True)
class ScepProtocol:
    """SCEP at one server. ``trust`` is what vouches for it (its ``tls`` is seen from the connection).

    ``key`` is the kind of key to make on this rung, None for the identity's. ``challenged`` says that the
    CSR will hold a challengePassword, ``always_challenged`` that a renewal needs one, too. ``initial_names``
    and ``renewal_names`` say whether the CA may choose other names than the CSR asked for.
    """

    name: ClassVar[str] = "scep"

    trust: Trust
    site: http.Site = _SITE
    legacy: frozenset[Legacy] = frozenset()
    decryption: Decryption = Decryption.OWN_KEY
    key: KeyAlgorithm | None = None
    challenged: bool = False
    always_challenged: bool = False
    cipher: ContentCipher = ContentCipher.AES128
    limits: ScepLimits = _LIMITS
    initial_names: NamePolicy = NamePolicy.SERVER_DECIDES
    renewal_names: NamePolicy = NamePolicy.EXACT

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:
        """What the key must be able to do, so that somebody here can read the answer.

        Raises KeyUnsuitable ``scep.key-cannot-decrypt``, which says what is possible.
        """
        if self.decryption is Decryption.TRANSPORT_KEY:
            return KeyDemand(transport=None if algorithm in _RSA else KeyAlgorithm.RSA2048)
        if self.decryption is Decryption.PASSWORD:
            return KeyDemand()
        if algorithm not in _RSA:
            raise KeyUnsuitable(
                "scep.key-cannot-decrypt",
                f"a {algorithm.value} key cannot decrypt the answer of a SCEP server. Possible: an RSA key "
                "(`key: {algorithm: rsa2048}` at scep or at the identity); `decryption: transport-key`, an "
                "RSA key in the same hardware beside it; or `decryption: password`, if the server has it",
                clause="RFC 8894 §3.1",
            )
        return KeyDemand(decrypt=True)

    def needs_challenge(self, current: SigningKey | None) -> bool:
        """Whether a CSR needs a challengePassword: to be authorised, or for the answer to be read with.
        *current* is the key of the certificate to be renewed, None at first."""
        always = self.always_challenged or self.decryption is Decryption.PASSWORD
        return always or not isinstance(current, rsa.RSAPrivateKey)

    def read_wishes(self, wishes: bytes) -> CsrTemplate:  # noqa: ARG002 - one shape for all
        """SCEP servers have no wishes; the rung may have one about the key."""
        return CsrTemplate(key=self.key)

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer]:
        """The server's CA certificates and those of its next CA, all vouched for.

        Also the preflight: raises before a key is made if no request can be made for this server, with
        the codes of :meth:`Server.preflight`; else what :func:`meet` and :func:`read_next` raise.
        """
        server = yield from meet(self._manner(tls, now))
        server.preflight(secret=self.challenged, by_password=self.decryption is Decryption.PASSWORD)
        coming: Chain = ()
        if server.capabilities.next_ca:
            resp = yield self.site.query("GetNextCACert")
            if resp.status == 200 and resp.body:
                types = frozenset({http.NEXT_CA_CERT})
                body = http.checked(resp, "GetNextCACert", types, now, self.limits.body)
                sha1 = Legacy.SHA1 in self.legacy
                coming = read_next(body, server.authority, sha1=sha1, limit=self.limits.body)
        found = tuple(dict.fromkeys((*server.authority.certificates, *coming)))
        return Offer(found, self.read_wishes(b""), authentic=True)

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:
        """Send the CSR as PKCSReq or RenewalReq and judge the reply.

        Raises LocalProtocolError for a request that must not be sent, RemoteProtocolError for an answer
        that breaks the protocol, TrustError for a reply or a certificate that must not be used.
        """
        asked, asker = self._asker(req)
        server = yield from meet(self._manner(tls, now))
        return (yield from self._request(server, req, asked, asker, now))

    def resume(
        self, req: EnrollmentRequest, token: bytes, tls: TlsInfo | None, now: Moment
    ) -> Exchange[Outcome]:
        """Poll for the certificate. Raises also LocalProtocolError ``scep.resume``."""
        if token != _token(req):
            raise LocalProtocolError("scep.resume", "the resume token belongs to another request")
        asked, asker = self._asker(req)
        server = yield from meet(self._manner(tls, now))
        names = messages.issuer_and_subject(server.authority.ca.subject, asked.subject)
        poll = replace(asker, secret=False)
        reply = yield from server.ask(MessageType.CERT_POLL, names, poll)
        if reply.message.fail_info is FailInfo.BAD_CERT_ID:
            return (yield from self._request(server, req, asked, asker, now))
        return self._outcome(server, reply, req, asked, now)

    def certificate(
        self, signer: Signer, req: EnrollmentRequest, serial: int, tls: TlsInfo | None, now: Moment
    ) -> Exchange[x509.Certificate | Rejected]:
        """GetCert (§3.3.4): the certificate that this CA issued under *serial*; *req* lends its transaction.

        Raises TrustError ``scep.get-cert`` if it is another one or the CA did not sign it.
        """
        server = yield from meet(self._manner(tls, now))
        wanted = messages.issuer_and_serial(server.authority.ca.subject, serial)
        asker = Asker(signer, req.transaction.hex(), req.random)
        reply = yield from server.ask(MessageType.GET_CERT, wanted, asker)
        if reply.message.status is not PkiStatus.SUCCESS:
            return _rejected(reply)
        return certificate_in(reply.content, server.authority.ca, serial, limit=self.limits.body)

    def revocation_list(
        self, signer: Signer, req: EnrollmentRequest, serial: int, tls: TlsInfo | None, now: Moment
    ) -> Exchange[x509.CertificateRevocationList | Rejected]:
        """GetCRL (§3.3.5): the CRL that would name the certificate with *serial*, signed by the CA.

        Raises TrustError ``scep.get-crl`` if the CA did not sign it or it has expired.
        """
        server = yield from meet(self._manner(tls, now))
        wanted = messages.issuer_and_serial(server.authority.ca.subject, serial)
        asker = Asker(signer, req.transaction.hex(), req.random)
        reply = yield from server.ask(MessageType.GET_CRL, wanted, asker)
        if reply.message.status is not PkiStatus.SUCCESS:
            return _rejected(reply)
        return crl_in(reply.content, server.authority.ca, now, limit=self.limits.body)

    # --- parts -------------------------------------------------------------------------------------

    def _manner(self, tls: TlsInfo | None, now: Moment) -> Manner:
        trust = replace(self.trust, tls=tls is not None and tls.authenticated)
        return Manner(self.site, trust, self.legacy, self.cipher, self.limits, now)

    def _request(
        self,
        server: Server,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        asker: Asker,
        now: Moment,
    ) -> Exchange[Outcome]:
        renews = asker.signer.renews and server.capabilities.renewal
        kind = MessageType.RENEWAL_REQ if renews else MessageType.PKCS_REQ
        reply = yield from server.ask(kind, req.csr, asker)
        return self._outcome(server, reply, req, asked, now)

    def _asker(self, req: EnrollmentRequest) -> tuple[x509.CertificateSigningRequest, Asker]:
        """The parsed CSR and who sends it. Raises LocalProtocolError ``scep.csr``, ``scep.no-current``,
        ``scep.key-cannot-decrypt``."""
        try:
            asked = csr.parse(req.csr)
            challenge = csr.challenge_password(asked)
            if csr.public_bytes(asked) != csr.public_bytes(req.key):
                raise LocalProtocolError("scep.csr", "the CSR is not for the key of the request")
        except (RemoteProtocolError, TrustError) as error:
            raise LocalProtocolError("scep.csr", f"the CSR cannot be sent: {error}") from error
        if req.purpose is not Purpose.INITIAL and (req.current is None or not req.current[0]):
            raise LocalProtocolError("scep.no-current", "a renewal without a certificate to renew")
        by_password = self.decryption is Decryption.PASSWORD
        asker = Asker(
            self._signer(req, asked, by_password=by_password),
            req.transaction.hex(),
            req.random,
            None if challenge is None else challenge.encode(),
            secret=challenge is not None,
            by_password=by_password,
        )
        return asked, asker

    def _signer(
        self, req: EnrollmentRequest, asked: x509.CertificateSigningRequest, *, by_password: bool
    ) -> Signer:
        """The certificate to be renewed if its key can read the answer, else one that a key makes now."""
        if req.current is not None and (by_password or isinstance(req.current[1], rsa.RSAPrivateKey)):
            return Signer(*req.current, renews=True)
        key = req.key if req.transport is None else req.transport
        if not by_password and not isinstance(key, rsa.RSAPrivateKey):
            detail = "the key of the request cannot decrypt the answer, and no other key was made for that"
            raise LocalProtocolError("scep.key-cannot-decrypt", detail, clause="RFC 8894 §3.1")
        return self_signed(key, asked.subject, req.transaction)

    def _outcome(
        self,
        server: Server,
        reply: Reply,
        req: EnrollmentRequest,
        asked: x509.CertificateSigningRequest,
        now: Moment,
    ) -> Outcome:
        if reply.message.status is PkiStatus.PENDING:
            return Pending(self.limits.wait, _token(req))
        if reply.message.status is PkiStatus.FAILURE:
            return _rejected(reply)
        found = cms.parse_certs_only(reply.content, limit=self.limits.body)
        names = self.initial_names if req.purpose is Purpose.INITIAL else self.renewal_names
        helpers = tuple(dict.fromkeys((*server.authority.certificates, *req.intermediates)))[:MOST_HELPERS]
        return accept_issued(found, replace(req, intermediates=helpers), asked, names, now, terms=_TERMS)


def _rejected(reply: Reply) -> Rejected:
    message = reply.message
    reason = message.fail_info or FailInfo.BAD_REQUEST
    detail = printable(message.fail_text) or "the server gave no text"
    return Rejected(f"scep.{reason.word}", detail, unsupported=reason is FailInfo.BAD_ALG)


def _token(req: EnrollmentRequest) -> bytes:
    """Names the one request that may be polled for. The CSR itself is durable with the caller."""
    token = {"v": 1, "transaction": req.transaction.hex(), "csr": hashlib.sha256(req.csr).hexdigest()}
    return json.dumps(token, sort_keys=True, separators=(",", ":")).encode()
