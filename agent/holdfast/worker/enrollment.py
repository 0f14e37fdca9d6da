"""One identity's enrollment and renewal: the effects of the identity table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Final, assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import IdentitySettings
from holdfast.host.drive import drive
from holdfast.host.transport import Link, secured
from holdfast.keys.api import NO_KEY, Homed, Key, KeyRef, KeySpec
from holdfast.life import events as ev
from holdfast.life.anchors import Trust, adopt
from holdfast.life.record import (
    Anchor,
    CredentialState,
    DeviceRecord,
    Hint,
    Identity,
    Transaction,
    TransactionState,
    Trouble,
)
from holdfast.life.renewal import later, patience
from holdfast.wire import csr
from holdfast.wire.errors import (
    HoldfastError,
    KeyStoreError,
    RemoteProtocolError,
    TransportError,
    TrustError,
)
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.request import link_challenge
from holdfast.wire.model import (
    Chain,
    CsrTemplate,
    EnrollmentProtocol,
    EnrollmentRequest,
    Hinting,
    Issued,
    Moment,
    Moved,
    Offer,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.worker.attestation import AttestationOffice
from holdfast.worker.bootstrap import factory_client
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.deployment import Deployer
from holdfast.worker.links import Client, Connection, Endpoint, Ground, domain_ground
from holdfast.worker.ports import Environment
from holdfast.worker.proof import prove
from holdfast.worker.rungs import Rung
from holdfast.worker.setbacks import key_is_gone
from holdfast.worker.subject import DeviceFacts, requested_names, with_device

PATIENCE: Final = timedelta(days=30)
"""How long one CSR is repeated after 202 before a new one is made."""

MOST_INTERMEDIATES: Final = 16
"""Certificates without trust of their own that are kept because they may help to build a path."""


HINT_SHORTEST: Final = timedelta(minutes=1)
HINT_USUAL: Final = timedelta(hours=6)
HINT_LONGEST: Final = timedelta(days=1)
"""Between two questions for a wish (RFC 9773 §4.3)."""


class RefusedError(HoldfastError):
    """The CA said no; carries the exchange's own code and text, and what else :class:`Rejected` tells."""

    def __init__(
        self, code: str, detail: str = "", *, unsupported: bool = False, estranged: bool = False
    ) -> None:
        super().__init__(code, detail)
        self.unsupported = unsupported
        self.estranged = estranged


class Enrollment:
    """Performs the effects of the identity table for one identity.

    Methods return what happened and raise a HoldfastError for what went wrong; the step turns that into
    a setback event.
    """

    def __init__(
        self,
        env: Environment,
        connection: Connection,
        settings: IdentitySettings,
        rung: Callable[[], Rung],
    ) -> None:
        """*rung* is asked when it is first needed: files and keys are handled without one."""
        self._env = env
        self._connection = connection
        self._settings = settings
        self._find_rung = rung

    @cached_property
    def _rung(self) -> Rung:
        return self._find_rung()

    @property
    def _protocol(self) -> EnrollmentProtocol:
        return self._rung.protocol

    @property
    def judges(self) -> bool:
        """Whether a new certificate can be shown to the server of this rung, where no other is configured."""
        return self._settings.verify_url is None and self._rung.probe is not None

    def identity(self, record: DeviceRecord) -> tuple[Chain, SigningKey]:
        """Who we are now: by the credential if there is one, else by the factory identity."""
        active = record.identity(self._settings.name).credential.state is CredentialState.ACTIVE
        client = self._client(record, Purpose.REKEY if active else Purpose.INITIAL)
        return client.chain, client.key

    def presented(self, record: DeviceRecord, now: Moment) -> tuple[Client, Link, Callable[[], Link] | None]:
        """The present credential, a link to this rung's server that may show it, and what follows that."""
        client = self._client(record, Purpose.REKEY)
        link = self._link(record, client, CsrTemplate(), now)
        return client, link, self._successor(record, client, CsrTemplate(), now)

    def discover(self, record: DeviceRecord, purpose: Purpose, now: Moment) -> ev.OfferTaken:
        """Read CA certificates and wishes, choose the key's kind and plan its place."""
        entry = record.identity(self._settings.name)
        client = self._client(record, purpose)
        link = self._link(record, client, CsrTemplate(), now)
        successor = self._successor(record, client, CsrTemplate(), now)
        offer = drive(self._protocol.discover(link.tls, now), link, successor)
        if isinstance(offer, Moved):
            raise self._moved(offer)
        algorithm = offer.template.key or self._settings.key.algorithm
        demand = self._protocol.key_demand(algorithm)
        trust = self._adopted(record, offer, link, now)
        proved = bool(offer.ca_certificates) and (link.tls is not None or offer.authentic)
        if purpose is Purpose.INITIAL and not proved and not self._rung.anchors:
            trust = self._introduced(record, client, trust, now)
        same_key = purpose is Purpose.RENEW
        generation = entry.credential.generation + 1
        return ev.OfferTaken(
            purpose=purpose,
            rung=self._rung.name,
            protocol=self._protocol.name,
            key=entry.credential.key if same_key else self._env.keys.plan(entry.name, generation),
            algorithm=algorithm,
            generation=generation,
            transaction=self._env.random(16).hex(),
            wishes=offer.wishes,
            anchors=trust.anchors,
            intermediates=trust.intermediates,
            retired=trust.retired,
            transport=self._transport(entry, generation) if demand.transport else NO_KEY,
            account=self._account(entry) if demand.account else NO_KEY,
        )

    def make_request(self, record: DeviceRecord, now: Moment) -> ev.CsrMade:
        """Make the planned key exactly where the record says, and sign its CSR."""
        transaction = record.identity(self._settings.name).transaction
        demand = self._protocol.key_demand(transaction.algorithm)
        if transaction.transport and demand.transport:
            self._env.keys.generate(transaction.transport, KeySpec(demand.transport, decrypt=True))
        if demand.account:
            self._ensure_account(record.identity(self._settings.name).account)
        if transaction.purpose is Purpose.RENEW:
            key = self._env.keys.load(transaction.key)
        else:
            spec = KeySpec(transaction.algorithm, decrypt=demand.decrypt)
            key = self._env.keys.generate(transaction.key, spec)
        home = self._env.keys.home() if isinstance(self._env.keys, Homed) else ""
        return ev.CsrMade(self._csr(record, key, now), home)

    def enroll(self, record: DeviceRecord, now: Moment, *, refreshed: bool = False) -> ev.IdentityEvent:
        """Send the CSR, or ask again for the answer to it.

        What leads to an unknown root may come from a CA that changed its root meanwhile: it is asked, once
        (*refreshed*: it was), and its answer judged by the anchors that we have.
        """
        entry = record.identity(self._settings.name)
        transaction = entry.transaction
        key = self._env.keys.load(transaction.key)
        template = self._wishes(transaction)
        client = self._client(record, transaction.purpose)
        attest = self._attest(record, key, now)
        link = self._link(record, client, template, now)
        if self._linked(template) and not _bound(transaction.csr, link):
            return ev.CsrMade(self._csr(record, key, now))
        request = replace(self._request(record, entry, key.signer(), client, template), attest=attest)
        exchange = (
            self._protocol.resume(request, transaction.resume, link.tls, now)
            if transaction.state is TransactionState.PENDING
            else self._protocol.enroll(request, link.tls, now)
        )
        successor = self._successor(record, client, template, now)
        try:
            outcome = drive(exchange, link, successor)
        except TrustError as error:
            changed = None if refreshed else self._changed_anchors(record, error, now)
            if changed is None:
                raise
            return changed
        match outcome:
            case Pending(retry_after, resume):
                return self._pending(transaction, retry_after, resume, now)
            case Rejected(code, detail, unsupported, estranged):
                raise RefusedError(code, detail, unsupported=unsupported, estranged=estranged)
            case Moved() as moved:
                raise self._moved(moved)
            case Issued(chain):
                born = chain[0].not_valid_before_utc
                seen = min(born, now.now) if now.trusted else born
                return ev.CertificateIssued(tuple(c.public_bytes(Encoding.DER) for c in chain), seen)
            case _:
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
        Deployer(self._env, self._settings).stage(record, transaction.generation, transaction.chain, key)
        client = Client(transaction.key, chain, key.signer())
        prove(
            self._connection,
            client,
            domain_ground(record.domain),
            now,
            server=self._rung.endpoint,
            probe=self._rung.probe,
            verify_url=self._settings.verify_url or "",
            registrar=Endpoint.parse(record.domain.registrar)
            if transaction.purpose is Purpose.INITIAL
            else None,
        )
        return ev.CredentialProved()

    def ask_hint(self, record: DeviceRecord, now: Moment) -> ev.HintHeard:
        """Ask the CA when it would like to see the credential renewed. No protocol, or no wish: whenever."""
        if not isinstance(self._protocol, Hinting):
            return ev.HintHeard(Hint(later(now.now, HINT_USUAL)))
        credential = record.identity(self._settings.name).credential
        client = self._client(record, Purpose.REKEY)
        link = self._link(record, client, CsrTemplate(), now)
        leaf = x509.load_der_x509_certificate(credential.chain[0])
        successor = self._successor(record, client, CsrTemplate(), now)
        found = drive(self._protocol.renewal_hint(leaf, link.tls, now), link, successor)
        if found is None:
            return ev.HintHeard(Hint(later(now.now, HINT_USUAL)))
        again = min(max(found.ask_again, HINT_SHORTEST), HINT_LONGEST)
        return ev.HintHeard(Hint(later(now.now, again), found.start, found.end))

    def retire(self, record: DeviceRecord) -> ev.KeysRetired:
        """Destroy what the record has named for it."""
        for ref in record.identity(self._settings.name).retiring:
            self._env.keys.destroy(ref)
        return ev.KeysRetired()

    # --- parts -------------------------------------------------------------------------------------

    def _changed_anchors(
        self, record: DeviceRecord, error: TrustError, now: Moment
    ) -> ev.AnchorsChanged | None:
        if error.code != "chain.untrusted":
            return None
        client = self._client(record, record.identity(self._settings.name).transaction.purpose)
        link = self._link(record, client, CsrTemplate(), now)
        successor = self._successor(record, client, CsrTemplate(), now)
        offer = drive(self._protocol.discover(link.tls, now), link, successor)
        if isinstance(offer, Moved):
            return None
        trust = self._adopted(record, offer, link, now)
        if not _news(trust, record):
            told = self._told_by_registrar(record, client, now)
            if told is None or not _news(told, record):
                return None
            trust = told
        return ev.AnchorsChanged(trust.anchors, trust.intermediates, trust.retired)

    def _introduced(self, record: DeviceRecord, client: Client, trust: Trust, now: Moment) -> Trust:
        """*trust*, and what the registrar names to a newcomer (RFC 8995 §5.9.1) whose rung proved nothing."""
        told = self._told_by_registrar(record, client, now)
        if told is None:
            return trust
        helpers = dict.fromkeys((*told.intermediates, *trust.intermediates))
        return replace(told, intermediates=tuple(helpers)[:MOST_INTERMEDIATES])

    def _told_by_registrar(self, record: DeviceRecord, client: Client, now: Moment) -> Trust | None:
        """The trust after the CA certificates that EST at the registrar gives, judged by the present anchors:
        a server of CMC, ACME or SCEP may have none to give, and would be left behind by a change of root.

        None where this rung asks by EST itself, and where no useful answer comes: nobody promised that there
        is EST, and what is not trusted changes nothing.
        """
        registrar = record.domain.registrar
        if self._protocol.name == EstProtocol.name or not registrar:
            return None
        endpoint = Endpoint.parse(registrar)
        try:
            link = self._connection.anchored(endpoint, client, domain_ground(record.domain), now)
            offer = drive(EstProtocol().authorities(link.tls, now), link)
            return None if isinstance(offer, Moved) else self._adopted(record, offer, link, now, endpoint)
        except (TransportError, RemoteProtocolError, TrustError):
            return None

    def _adopted(
        self, record: DeviceRecord, offer: Offer, link: Link, now: Moment, server: Endpoint | None = None
    ) -> Trust:
        """Anchors and intermediates after *offer* of *server*, or of this rung's. One that anybody could have
        made brings no anchor."""
        server = server or self._rung.endpoint
        held = record.domain.anchors
        if not offer.ca_certificates:
            return Trust(held, record.domain.intermediates)
        if link.tls is None and not offer.authentic:
            kept = {a.certificate for a in held}
            ders = (c.public_bytes(Encoding.DER) for c in offer.ca_certificates if c.issuer != c.subject)
            fresh = tuple(der for der in ders if der not in kept)
            known = tuple(dict.fromkeys((*fresh, *record.domain.intermediates)))[:MOST_INTERMEDIATES]
            return Trust(held, known)
        peer = load_chain(link.tls.peer_chain) if link.tls is not None else ()

        def serves(anchors: tuple[Anchor, ...]) -> None:
            if not peer:
                raise TrustError("tls.plain", "plain HTTP shows no certificate to try new anchors on")
            intermediates = tuple(c for c in offer.ca_certificates if c.issuer != c.subject)
            ground = Ground(anchors, certificates_of(anchors), intermediates, record.domain.est_domain)
            ground.check(peer, server.host, now)

        return adopt(
            held,
            offer.ca_certificates,
            serves,
            now,
            source=str(server),
            retired=record.domain.retired,
        )

    def _server_ground(self, record: DeviceRecord) -> Ground:
        """By what the server of this rung is trusted."""
        anchors = self._rung.anchors
        return Ground(anchors, certificates_of(anchors), ()) if anchors else domain_ground(record.domain)

    def _linked(self, template: CsrTemplate) -> bool:
        """Whether the CSR is bound to its connection."""
        return template.link_tls_unique or self._rung.tls_unique

    def _link(self, record: DeviceRecord, client: Client, template: CsrTemplate, now: Moment) -> Link:
        if self._rung.endpoint.plain:
            return self._connection.plain(self._rung.endpoint)
        return self._connection.anchored(
            self._rung.endpoint,
            client if self._rung.client_certificate else None,
            self._server_ground(record),
            now,
            tls_unique=self._linked(template),
            under=self._rung.name if self._rung.anchors else "",
        )

    def _successor(
        self, record: DeviceRecord, client: Client, template: CsrTemplate, now: Moment
    ) -> Callable[[], Link] | None:
        """Where an exchange goes on if the server ends each connection after one answer; None: nowhere."""
        if self._linked(template):
            return None
        return lambda: self._link(record, client, template, now)

    def _client(self, record: DeviceRecord, purpose: Purpose) -> Client:
        """Who asks: the factory identity at first, the current credential for a renewal (RFC 7030 §3.3.2)."""
        if purpose is Purpose.INITIAL:
            return factory_client(self._env.factory())
        credential = record.identity(self._settings.name).credential
        key = self._env.keys.load(credential.key)
        return Client(credential.key, load_chain(credential.chain), key.signer())

    def _wishes(self, transaction: Transaction) -> CsrTemplate:
        return self._protocol.read_wishes(transaction.wishes)

    def _current(self, entry: Identity, purpose: Purpose) -> x509.Certificate | None:
        if purpose is Purpose.INITIAL:
            return None
        return x509.load_der_x509_certificate(entry.credential.chain[0])

    def _csr(self, record: DeviceRecord, key: Key, now: Moment) -> bytes:
        entry = record.identity(self._settings.name)
        purpose = entry.transaction.purpose
        template = self._wishes(entry.transaction)
        serial = self._env.factory().serial_number if purpose is Purpose.INITIAL else ""
        facts = DeviceFacts(serial, self._env.facts)
        subject, san = requested_names(self._settings, facts, self._current(entry, purpose))
        attestation = self._rung.attestation
        if attestation is not None and attestation.device_in_csr:
            san = with_device(san, self._env.factory().serial_number, attestation.hardware_type)
        challenge = self._challenge(record, purpose)
        if self._linked(template):
            link = self._link(record, self._client(record, purpose), template, now)
            challenge = link_challenge(secured(link))
        return csr.build(key.signer(), subject, template=template, san=san, challenge=challenge)

    def _transport(self, entry: Identity, generation: int) -> KeyRef:
        """Where the key goes that decrypts in the place of the identity's own."""
        return self._env.keys.plan(f"{entry.name}-transport", generation)

    def _account(self, entry: Identity) -> KeyRef:
        """Where the key is that stands for the device at an ACME server: one for all its life."""
        return entry.account or self._env.keys.plan(f"{entry.name}-account", 1)

    def _ensure_account(self, ref: KeyRef) -> None:
        try:
            self._env.keys.load(ref)
        except KeyStoreError as error:
            if not key_is_gone(error):
                raise
            self._env.keys.generate(ref, KeySpec())

    def _attest(self, record: DeviceRecord, key: Key, now: Moment) -> Callable[[bytes], bytes] | None:
        """What gives the hardware's statement about *key*; the attestation key's certificate is seen to
        first, because that may take another connection."""
        settings = self._rung.attestation
        if settings is None:
            return None
        office = AttestationOffice(self._env, self._connection, settings, self._server_ground(record))
        return office.attest(key, now)

    def _challenge(self, record: DeviceRecord, purpose: Purpose) -> str | None:
        if self._rung.challenge is None:
            return None
        current = None if purpose is Purpose.INITIAL else self._client(record, purpose).key
        return self._rung.challenge(current)

    def _request(
        self, record: DeviceRecord, entry: Identity, key: SigningKey, client: Client, template: CsrTemplate
    ) -> EnrollmentRequest:
        transaction = entry.transaction
        return EnrollmentRequest(
            purpose=transaction.purpose,
            csr=transaction.csr,
            key=key,
            subject=csr.parse(transaction.csr).subject,
            anchors=certificates_of(self._rung.anchors or record.domain.anchors),
            intermediates=load_chain(record.domain.intermediates),
            transaction=bytes.fromhex(transaction.id),
            random=self._env.random,
            current=None if transaction.purpose is Purpose.INITIAL else (client.chain, client.key),
            template=template,
            signer=(client.chain, client.key),
            transport=self._env.keys.load(transaction.transport).signer() if transaction.transport else None,
            account=self._env.keys.load(entry.account).signer() if entry.account else None,
        )

    def _moved(self, moved: Moved) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"{self._protocol.name}.redirect",
            f"the server points to {moved.location}; name that server in the configuration if it is right",
            clause="RFC 7030 §3.2.1" if self._protocol.name == "est" else "",
        )

    def _pending(
        self, transaction: Transaction, retry_after: timedelta, resume: bytes, now: Moment
    ) -> ev.EnrollmentPending:
        if transaction.deadline is not None and now.now > transaction.deadline:
            code = f"{self._protocol.name}.no-answer"
            raise RefusedError(code, f"the CA let us wait for {PATIENCE.days} days")
        deadline = transaction.deadline or later(now.now, PATIENCE)
        wait = patience(retry_after, PATIENCE - (deadline - now.now))
        return ev.EnrollmentPending(later(now.now, wait), resume, deadline)


def _news(trust: Trust, record: DeviceRecord) -> bool:
    """Whether *trust* is other than the record's."""
    domain = record.domain
    return (trust.anchors, trust.intermediates) != (domain.anchors, domain.intermediates)


def _bound(request: bytes, link: Link) -> bool:
    return csr.challenge_password(csr.parse(request)) == link_challenge(secured(link))


def unheard(entry: Identity, why: Trouble, now: Moment) -> ev.HintHeard:
    """The CA could not be asked for its wish: the one before still holds."""
    before = entry.hint or Hint(now.now)
    return ev.HintHeard(replace(before, ask=later(now.now, HINT_USUAL), trouble=why))
