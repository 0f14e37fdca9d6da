"""The ACME client (RFC 8555) as exchanges that can be cut off anywhere.

An order goes through legs. Each leg ends where something must be durable before the next one: the order's
URL after it was made, and the state of a server that is still at work. It ends as ``Pending`` with a token,
and the same order goes on from that token after a power cut, in whatever state the server left it (§7.1.6).
The CSR was durable before the first leg.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import csr
from holdfast.wire.acme.account import ExternalAccount, enter
from holdfast.wire.acme.ari import ask, certificate_id
from holdfast.wire.acme.authorize import authorize, tell_failure
from holdfast.wire.acme.challenges import Solver
from holdfast.wire.acme.download import download
from holdfast.wire.acme.jose import b64
from holdfast.wire.acme.objects import Identifier, Order, read_order
from holdfast.wire.acme.session import AcmeLimits, AcmeProblem, Session
from holdfast.wire.chain import Rule
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.issued import NamePolicy, Terms, accept_issued, alternative_names
from holdfast.wire.model import (
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
    Rejected,
    RenewalHint,
    TlsInfo,
)

_LIMITS: Final = AcmeLimits()
_TERMS: Final = Terms("acme", "RFC 8555 §7.4.2", "RFC 8555 §7.4", _LIMITS.certificates)
_SERVER_TERMS: Final = replace(_TERMS, rule=Rule.issued_server())
_REFUSALS: Final = frozenset(
    {
        "unauthorized",
        "rejectedIdentifier",
        "badCSR",
        "badPublicKey",
        "badAttestationStatement",
        "caa",
        "externalAccountRequired",
        "userActionRequired",
        "accountDoesNotExist",
        "invalidProfile",
        "unsupportedIdentifier",
    }
)
"""Kinds by which a server says no to what was asked, however often it is asked."""


@dataclass(frozen=True, slots=True)
class AcmeProtocol:
    """ACME at the server whose directory is *directory* (origin-form target).

    The certificate is for the DNS and IP names of the CSR and, where ``device`` tells it, for the device
    itself. The account key of the request signs everything. ``solver`` meets the classic challenges, the
    request's ``attest`` device-attest-01; ``prefer`` orders the kinds, and what it does not name is not
    used. ``alternate`` prefers a chain by the common name that issued its top. ``for_server``: the
    certificate is for a server of this device, such as its web page; public CAs issue nothing else.
    ``hardware_type``, a dotted OID: the device is ordered as a hardware-module of that type."""

    name: ClassVar[str] = "acme"

    directory: str
    prefer: tuple[str, ...]
    device: Callable[[], str] | None = field(default=None, repr=False)
    hardware_type: str | None = None
    solver: Solver | None = field(default=None, repr=False)
    contacts: tuple[str, ...] = ()
    external: ExternalAccount | None = field(default=None, repr=False)
    profile: str | None = None
    alternate: str | None = None
    for_server: bool = False
    limits: AcmeLimits = _LIMITS

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:  # noqa: ARG002 - one shape for all
        """Any key that can sign its CSR, and another for the account (RFC 8555 §11.1)."""
        return KeyDemand(account=True)

    def read_wishes(self, wishes: bytes) -> CsrTemplate:  # noqa: ARG002 - one shape for all
        """ACME servers wish nothing."""
        return CsrTemplate()

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:
        """See whether the server is there and has what was configured. ACME tells no CA certificates.

        Raises RemoteProtocolError ``acme.profile``, ``acme.eab-required``.
        """
        session = Session(tls, None, self.limits, now)
        directory = yield from session.open(self.directory)
        if directory.meta.externalAccountRequired and self.external is None:
            detail = "the server wants an external account; configure its key identifier and MAC key"
            raise RemoteProtocolError("acme.eab-required", detail, clause="RFC 8555 §7.3.4")
        if self.profile is not None and self.profile not in directory.meta.profiles:
            known = ", ".join(sorted(directory.meta.profiles)[:10]) or "none"
            raise RemoteProtocolError(
                "acme.profile", f"no profile {self.profile!r}; the server has {known}"[:300]
            )
        return Offer((), CsrTemplate())

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:
        """Make the order. Its URL is the token of the Pending that comes back: durable before it is used."""
        session = Session(tls, req.account, self.limits, now)
        try:
            yield from session.open(self.directory)
            yield from enter(session, contacts=self.contacts, external=self.external)
            resp = yield from self._order(session, self._identifiers(req), _replaced(session, req))
        except AcmeProblem as problem:
            return _outcome(problem, b"")
        url = resp.header("Location") or ""
        session.target(url)
        read_order(resp)
        return Pending(timedelta(0), _token(req, url))

    def resume(
        self, req: EnrollmentRequest, token: bytes, tls: TlsInfo | None, now: Moment
    ) -> Exchange[Outcome]:
        """Go on with the order of *token*, or make one if there is none yet.

        Raises LocalProtocolError ``acme.resume``; RemoteProtocolError and TrustError for what the server did.
        """
        if not token:
            return (yield from self.enroll(req, tls, now))
        url = _order_url(req, token)
        session = Session(tls, req.account, self.limits, now)
        try:
            yield from session.open(self.directory)
            yield from enter(session, contacts=self.contacts, external=self.external)
            return (yield from self._pursue(session, req, url, token, now))
        except AcmeProblem as problem:
            return _outcome(problem, token)

    def _identifiers(self, req: EnrollmentRequest) -> tuple[Identifier, ...]:
        """Raises LocalProtocolError ``acme.no-identifier``."""
        device = () if self.device is None else (self._device(self.device()),)
        names = alternative_names(csr.parse(req.csr))
        found = (*device, *identifiers_of(sorted(names, key=str)))
        if not found:
            detail = "neither a DNS or IP name nor the device itself is asked for"
            raise LocalProtocolError("acme.no-identifier", detail)
        return found

    def _device(self, serial_number: str) -> Identifier:
        """The device in the form that the server wants (device-attest draft §3)."""
        if self.hardware_type is None:
            return Identifier("permanent-identifier", serial_number)
        return Identifier("hardware-module", f"{serial_number}/{self.hardware_type}")

    def renewal_hint(
        self, current: x509.Certificate, tls: TlsInfo | None, now: Moment
    ) -> Exchange[RenewalHint | None]:
        """The server's suggestion for *current* (RFC 9773), as :class:`~holdfast.wire.model.Hinting` wants
        it."""
        session = Session(tls, None, self.limits, now)
        yield from session.open(self.directory)
        return (yield from ask(session, current))

    def _order(
        self, session: Session, identifiers: tuple[Identifier, ...], replaces: str | None
    ) -> Exchange[HttpResponse]:
        payload: dict[str, object] = {
            "identifiers": [{"type": i.type, "value": i.value} for i in identifiers]
        }
        if self.profile is not None:
            payload["profile"] = self.profile
        url = session.resource("newOrder")
        if replaces is None:
            return (yield from session.post(url, payload))
        try:
            return (yield from session.post(url, {**payload, "replaces": replaces}))
        except AcmeProblem as problem:
            if problem.kind not in ("alreadyReplaced", "malformed"):
                raise
            return (yield from session.post(url, payload))  # RFC 9773 §5: an order without it is as good

    def _pursue(
        self, session: Session, req: EnrollmentRequest, url: str, token: bytes, now: Moment
    ) -> Exchange[Outcome]:
        """One leg over the order's states (RFC 8555 §7.1.6)."""
        resp = yield from session.post(url, None)
        order = read_order(resp)
        if order.status == "pending":
            done = yield from authorize(
                session, order, prefer=self.prefer, solver=self.solver, attest=req.attest
            )
            if not done:
                return Pending(session.wait(resp), token)
            resp = yield from session.post(url, None)
            order = read_order(resp)
        if order.status == "ready":
            resp = yield from session.post(order.finalize, {"csr": b64(req.csr)})
            order = read_order(resp)
        if order.status == "valid":
            return (yield from self._collect(session, req, order, now))
        if order.status == "invalid":
            yield from tell_failure(session, order)
            return Rejected("acme.order-invalid", str(order.error or "the server does not say why"))
        return Pending(session.wait(resp), token)

    def _collect(
        self, session: Session, req: EnrollmentRequest, order: Order, now: Moment
    ) -> Exchange[Outcome]:
        if order.certificate is None:
            raise RemoteProtocolError(
                "acme.order", "valid, but without a certificate", clause="RFC 8555 §7.1.3"
            )
        certificates = yield from download(session, order.certificate, self.limits, prefer=self.alternate)
        # A CSR need not repeat device identifiers (device-attest draft §4): the order says what was proved.
        terms = _SERVER_TERMS if self.for_server else _TERMS
        issued = accept_issued(
            certificates, req, csr.parse(req.csr), NamePolicy.SERVER_DECIDES, now, terms=terms
        )
        _require_names(issued.chain[0], self._identifiers(req))
        return issued


def revoke(session: Session, certificate: x509.Certificate, *, reason: int | None = None) -> Exchange[None]:
    """Revoke *certificate*, signed by the session's key: the account's, or the certificate's own (§7.6).

    For the latter make a session with that key and leave ``kid`` unset. Repeating is harmless.
    """
    payload: dict[str, object] = {"certificate": b64(certificate.public_bytes(Encoding.DER))}
    if reason is not None:
        payload["reason"] = reason
    try:
        yield from session.post(session.resource("revokeCert"), payload)
    except AcmeProblem as problem:
        if problem.kind != "alreadyRevoked":
            raise


def identifiers_of(san: Sequence[x509.GeneralName]) -> tuple[Identifier, ...]:
    """The identifiers of DNS and IP names (RFC 8738). Raises LocalProtocolError ``acme.identifier``."""
    found = []
    for name in san:
        if isinstance(name, x509.DNSName):
            found.append(Identifier("dns", name.value))
        elif isinstance(name, x509.IPAddress):
            found.append(Identifier("ip", str(name.value)))
        elif not isinstance(name, x509.OtherName):  # the device's own name: see ``device``
            raise LocalProtocolError("acme.identifier", f"no ACME identifier for a {type(name).__name__}")
    return tuple(found)


def _replaced(session: Session, req: EnrollmentRequest) -> str | None:
    """The name of the certificate that a renewal replaces, for a server that keeps count (RFC 9773 §5)."""
    if req.current is None or session.directory is None or session.directory.renewalInfo is None:
        return None
    try:
        return certificate_id(req.current[0][0])
    except LocalProtocolError:
        return None


def _require_names(leaf: x509.Certificate, identifiers: tuple[Identifier, ...]) -> None:
    """The certificate carries exactly the DNS and IP names of the order (RFC 8555 §7.4)."""
    given = {Identifier(i.type, i.value.lower()) for i in identifiers if i.type in ("dns", "ip")}
    names = [n for n in alternative_names(leaf) if isinstance(n, x509.DNSName | x509.IPAddress)]
    found = {Identifier(i.type, i.value.lower()) for i in identifiers_of(names)}
    if given != found:
        listed = ", ".join(sorted(i.value for i in found ^ given))[:200]
        raise TrustError("acme.names", f"order and certificate differ in {listed}", clause="RFC 8555 §7.4")


def _outcome(problem: AcmeProblem, token: bytes) -> Outcome:
    """A refusal is an outcome; a server that asks for patience gets it; all else stays an error."""
    if problem.wait is not None and (problem.kind == "rateLimited" or problem.status in (429, 503)):
        return Pending(problem.wait, token)
    if problem.kind in _REFUSALS:
        return Rejected(problem.code, problem.detail)
    if problem.status in (404, 405, 501) and not problem.kind:
        return Rejected("acme.unsupported", problem.detail, unsupported=True)
    raise problem


def _token(req: EnrollmentRequest, url: str) -> bytes:
    return json.dumps({"v": 1, "order": url, "csr": b64(req.csr[-16:])}, separators=(",", ":")).encode()


def _order_url(req: EnrollmentRequest, token: bytes) -> str:
    """The order that *token* names. Another CSR has its own order."""
    try:
        found = json.loads(token)
        url, mark = str(found["order"]), str(found["csr"])
    except (ValueError, KeyError, TypeError) as error:
        raise LocalProtocolError("acme.resume", "the resume token cannot be read") from error
    if mark != b64(req.csr[-16:]):
        raise LocalProtocolError("acme.resume", "the resume token belongs to another request")
    return url
