"""One identity's enrollment and renewal: the effects of the identity table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import IdentitySettings
from holdfast.host.drive import drive
from holdfast.host.transport import Link
from holdfast.keys.api import Key, KeySpec
from holdfast.life import events as ev
from holdfast.life.anchors import adopt
from holdfast.life.record import Anchor, DeviceRecord, Identity, Transaction, TransactionState
from holdfast.life.renewal import later
from holdfast.wire import csr
from holdfast.wire.errors import HoldfastError, RemoteProtocolError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.csrattrs import parse_csrattrs
from holdfast.wire.est.request import link_challenge
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentRequest,
    Issued,
    Moment,
    Moved,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.worker.bootstrap import factory_client
from holdfast.worker.links import Client, Connection, Endpoint, Ground
from holdfast.worker.ports import Environment
from holdfast.worker.proof import prove
from holdfast.worker.subject import requested_names

PATIENCE: Final = timedelta(days=30)
"""How long one CSR is repeated after 202 before a new one is made."""


class RefusedError(HoldfastError):
    """The CA said no; carries the exchange's own code and text."""

    @property
    def estranged(self) -> bool:
        """Whether the server does not know us, rather than not liking the request."""
        return self.code == "est.unauthorized"


class Enrollment:
    """Performs the effects of the identity table for one identity.

    Methods return what happened and raise a HoldfastError for what went wrong; the step turns that into
    a setback event.
    """

    def __init__(
        self, env: Environment, connection: Connection, settings: IdentitySettings, protocol: EstProtocol
    ) -> None:
        self._env = env
        self._connection = connection
        self._settings = settings
        self._protocol = protocol

    def discover(self, record: DeviceRecord, purpose: Purpose, now: Moment) -> ev.OfferTaken:
        """Read CA certificates and wishes, choose the key's kind and plan its place."""
        entry = record.identity(self._settings.name)
        link = self._link(record, purpose, CsrTemplate(), now)
        successor = self._successor(record, purpose, CsrTemplate(), now)
        offer = drive(self._protocol.discover(link.tls, now), link, successor)
        if isinstance(offer, Moved):
            raise _moved(offer)
        endpoint = self._endpoint(record)
        peer = load_chain(link.tls.peer_chain)

        def serves(anchors: tuple[Anchor, ...]) -> None:
            intermediates = tuple(c for c in offer.ca_certificates if c.issuer != c.subject)
            Ground(anchors, certificates_of(anchors), intermediates).check(peer, endpoint.host, now)

        anchors, intermediates = adopt(record.domain.anchors, offer.ca_certificates, serves, now)
        same_key = purpose is Purpose.RENEW
        generation = entry.credential.generation + 1
        return ev.OfferTaken(
            purpose=purpose,
            protocol=self._protocol.name,
            key=entry.credential.key if same_key else self._env.keys.plan(entry.name, generation),
            algorithm=offer.template.key or self._settings.key.algorithm,
            generation=generation,
            transaction=self._env.random(16).hex(),
            wishes=offer.wishes,
            anchors=anchors,
            intermediates=intermediates,
        )

    def make_request(self, record: DeviceRecord, now: Moment) -> ev.CsrMade:
        """Make the planned key exactly where the record says, and sign its CSR."""
        transaction = record.identity(self._settings.name).transaction
        if transaction.purpose is Purpose.RENEW:
            key = self._env.keys.load(transaction.key)
        else:
            key = self._env.keys.generate(transaction.key, KeySpec(transaction.algorithm))
        return ev.CsrMade(self._csr(record, key, now))

    def enroll(self, record: DeviceRecord, now: Moment) -> ev.IdentityEvent:
        """Send the CSR, or ask again for the answer to it."""
        entry = record.identity(self._settings.name)
        transaction = entry.transaction
        key = self._env.keys.load(transaction.key)
        template = self._wishes(transaction)
        link = self._link(record, transaction.purpose, template, now)
        linked = template.link_tls_unique or self._settings.est.tls_unique
        if linked and not _bound(transaction.csr, link):
            return ev.CsrMade(self._csr(record, key, now))
        request = self._request(record, entry, key.signer())
        exchange = (
            self._protocol.resume(request, transaction.resume, link.tls, now)
            if transaction.state is TransactionState.PENDING
            else self._protocol.enroll(request, link.tls, now, template=template)
        )
        successor = self._successor(record, transaction.purpose, template, now)
        match drive(exchange, link, successor):
            case Pending(retry_after, resume):
                return self._pending(transaction, retry_after, resume, now)
            case Rejected(code, detail):
                raise RefusedError(code, detail)
            case Moved() as moved:
                raise _moved(moved)
            case Issued(chain):
                born = chain[0].not_valid_before_utc
                seen = min(born, now.now) if now.trusted else born
                return ev.CertificateIssued(tuple(c.public_bytes(Encoding.DER) for c in chain), seen)
            case outcome:
                assert_never(outcome)

    def prove(self, record: DeviceRecord, now: Moment) -> ev.CredentialProved:
        """Write the new generation beside the old one, then use it in a real handshake."""
        entry = record.identity(self._settings.name)
        transaction = entry.transaction
        key = self._env.keys.load(transaction.key)
        chain = load_chain(transaction.chain)
        end = chain[0].not_valid_after_utc
        if end < (now.now if now.trusted else now.floor):
            raise RefusedError("proof.too-late", f"the new certificate ended at {end} before it was proved")
        self._stage(record, transaction.generation, chain, key)
        client = Client(transaction.key, chain, key.signer())
        prove(
            self._connection,
            client,
            self._ground(record),
            now,
            server=self._endpoint(record),
            verify_url=self._settings.verify_url or "",
            registrar=Endpoint.parse(record.domain.registrar)
            if transaction.purpose is Purpose.INITIAL
            else None,
        )
        return ev.CredentialProved()

    def deploy(self, record: DeviceRecord) -> ev.Deployed:
        """Make the active generation current for other programs. Writes nothing if it is."""
        credential = record.identity(self._settings.name).credential
        files = self._env.files(self._settings.name)
        if files.current() != credential.generation:
            key = self._env.keys.load(credential.key)
            self._stage(record, credential.generation, load_chain(credential.chain), key)
            files.promote(credential.generation)
        return ev.Deployed()

    def retire(self, record: DeviceRecord) -> ev.KeysRetired:
        """Destroy what the record has named for it."""
        for ref in record.identity(self._settings.name).retiring:
            self._env.keys.destroy(ref)
        return ev.KeysRetired()

    # --- parts -------------------------------------------------------------------------------------

    def _endpoint(self, record: DeviceRecord) -> Endpoint:
        return Endpoint.parse(self._settings.est.url or record.domain.registrar)

    def _ground(self, record: DeviceRecord) -> Ground:
        domain = record.domain
        return Ground(domain.anchors, certificates_of(domain.anchors), load_chain(domain.intermediates))

    def _link(self, record: DeviceRecord, purpose: Purpose, template: CsrTemplate, now: Moment) -> Link:
        return self._connection.anchored(
            self._endpoint(record),
            self._client(record, purpose),
            self._ground(record),
            now,
            tls_unique=template.link_tls_unique or self._settings.est.tls_unique,
        )

    def _successor(
        self, record: DeviceRecord, purpose: Purpose, template: CsrTemplate, now: Moment
    ) -> Callable[[], Link] | None:
        """Where an exchange goes on if the server ends each connection after one answer; None: nowhere."""
        if template.link_tls_unique or self._settings.est.tls_unique:
            return None
        return lambda: self._link(record, purpose, template, now)

    def _client(self, record: DeviceRecord, purpose: Purpose) -> Client:
        """Who asks: the factory identity at first, the current credential for a renewal (RFC 7030 §3.3.2)."""
        if purpose is Purpose.INITIAL:
            return factory_client(self._env.factory())
        credential = record.identity(self._settings.name).credential
        key = self._env.keys.load(credential.key)
        return Client(credential.key, load_chain(credential.chain), key.signer())

    def _current_pair(self, entry: Identity) -> tuple[Chain, SigningKey] | None:
        """The credential that a renewal replaces; its key is the one that the connection uses."""
        if entry.transaction.purpose is Purpose.INITIAL:
            return None
        key = self._env.keys.load(entry.credential.key)
        return load_chain(entry.credential.chain), key.signer()

    def _wishes(self, transaction: Transaction) -> CsrTemplate:
        return parse_csrattrs(transaction.wishes) if transaction.wishes else CsrTemplate()

    def _current(self, entry: Identity, purpose: Purpose) -> x509.Certificate | None:
        if purpose is Purpose.INITIAL:
            return None
        return x509.load_der_x509_certificate(entry.credential.chain[0])

    def _csr(self, record: DeviceRecord, key: Key, now: Moment) -> bytes:
        entry = record.identity(self._settings.name)
        purpose = entry.transaction.purpose
        template = self._wishes(entry.transaction)
        serial = self._env.factory().serial_number if purpose is Purpose.INITIAL else ""
        subject, san = requested_names(self._settings, serial, self._current(entry, purpose))
        challenge = None
        if template.link_tls_unique or self._settings.est.tls_unique:
            challenge = link_challenge(self._link(record, purpose, template, now).tls)
        return csr.build(key.signer(), subject, template=template, san=san, challenge=challenge)

    def _request(self, record: DeviceRecord, entry: Identity, key: SigningKey) -> EnrollmentRequest:
        transaction = entry.transaction
        return EnrollmentRequest(
            purpose=transaction.purpose,
            csr=transaction.csr,
            key=key,
            subject=csr.parse(transaction.csr).subject,
            anchors=certificates_of(record.domain.anchors),
            intermediates=load_chain(record.domain.intermediates),
            transaction=bytes.fromhex(transaction.id),
            random=self._env.random,
            current=self._current_pair(entry),
        )

    def _pending(
        self, transaction: Transaction, retry_after: timedelta, resume: bytes, now: Moment
    ) -> ev.EnrollmentPending:
        if transaction.deadline is not None and now.now > transaction.deadline:
            raise RefusedError("est.no-answer", f"the CA answered 202 for {PATIENCE.days} days")
        return ev.EnrollmentPending(later(now.now, retry_after), resume, later(now.now, PATIENCE))

    def _stage(self, record: DeviceRecord, generation: int, chain: Chain, key: Key) -> None:
        anchors = certificates_of(record.domain.anchors)
        self._env.files(self._settings.name).stage(generation, chain, anchors, key.reference_pem())


def load_chain(ders: tuple[bytes, ...]) -> Chain:
    """Certificates that were checked before they were stored."""
    return tuple(x509.load_der_x509_certificate(der) for der in ders)


def certificates_of(anchors: tuple[Anchor, ...]) -> Chain:
    return load_chain(tuple(a.certificate for a in anchors))


def _bound(request: bytes, link: Link) -> bool:
    return csr.challenge_password(csr.parse(request)) == link_challenge(link.tls)


def _moved(moved: Moved) -> RemoteProtocolError:
    return RemoteProtocolError(
        "est.redirect",
        f"the server points to {moved.location}; name that server in the configuration if it is right",
        clause="RFC 7030 §3.2.1",
    )
