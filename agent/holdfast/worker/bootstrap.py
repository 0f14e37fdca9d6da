"""Whose device is this? The BRSKI part of a step (RFC 8995 §5)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.drive import drive
from holdfast.host.transport import Link, secured
from holdfast.life import events as ev
from holdfast.life.record import Anchor, DeviceRecord, Provenance
from holdfast.life.renewal import later, patience
from holdfast.wire.brski import client as brski
from holdfast.wire.brski.verify import VoucherTrust
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import HoldfastError, KeyStoreError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Moment, Moved, Pending, Rejected
from holdfast.worker.candidates import by_the_cloud, last_of_all, whom_to_ask
from holdfast.worker.certificates import load_chain, read_certificates
from holdfast.worker.links import Client, Connection, Endpoint
from holdfast.worker.ports import Environment, FactoryIdentity
from holdfast.worker.seeking import nobody, seek
from holdfast.worker.setbacks import lies, next_attempt, trouble

PATIENCE: Final = timedelta(days=4)
"""How long one voucher request is repeated after 202 (RFC 8995 §5.6)."""

MOST_REDIRECTS: Final = 24
"""From the maker's registrar to the owner's: "in the dozens" (draft-ietf-anima-brski-cloud-16 §3.3.1)."""

FACTORY: Final = "idevid"


def factory_client(factory: FactoryIdentity) -> Client:
    """The IDevID as a TLS client."""
    return Client(FACTORY, factory.chain, factory.key.signer())


class Bootstrap:
    """Performs the effects of the domain table. Each method returns what happened."""

    def __init__(self, env: Environment, connection: Connection) -> None:
        self._env = env
        self._connection = connection

    def seek(self, record: DeviceRecord, now: Moment) -> Iterator[ev.DomainEvent]:
        """Look for registrars on the network."""
        found = seek(self._env, record, now)
        yield found
        if not found.candidates:
            yield self._failed(record, nobody(found.silent), now)

    @property
    def _patience(self) -> float | None:
        """Whoever makes no progress for so long is left for the next (RFC 8995 §4.1): of places that anybody
        may have announced, some are dead. Configured ones get all the time that the limits give."""
        discovery = self._env.settings.discovery
        return None if discovery is None else discovery.progress_seconds

    def prepare(self, record: DeviceRecord, now: Moment) -> ev.DomainEvent:
        """Connect provisionally and sign the voucher request that names this very registrar."""
        registrar = whom_to_ask(record, self._env.settings)
        try:
            factory = self._env.factory()
            link = self._meet(record, Endpoint.parse(registrar), factory_client(factory), now)
            attempt = brski.prepare(factory.key.signer(), factory.chain, secured(link), now, self._env.random)
        except KeyStoreError as error:
            return self._interrupted(record, error, now)
        except HoldfastError as error:
            return self._failed(record, error, now)
        return ev.AttemptPrepared(
            registrar=registrar,
            nonce=attempt.nonce,
            pvr=attempt.pvr,
            registrar_certificate=attempt.registrar_certificate,
            deadline=later(now.now, PATIENCE),
        )

    def _meet(self, record: DeviceRecord, endpoint: Endpoint, client: Client, now: Moment) -> Link:
        """The maker's own registrar is never met provisionally: he gave the anchors with the device. Where it
        sends us is met as any other registrar, and what those anchors say of it decides how much it may say
        (draft-ietf-anima-brski-cloud-16 §3.3.1)."""
        anchors = self._env.settings.manufacturer.cloud_anchors
        if anchors is None or not by_the_cloud(record) or record.domain.redirected:
            return self._connection.provisional(endpoint, client, self._patience)
        return self._connection.web(endpoint, client, read_certificates(anchors), now, self._patience)

    def request(self, record: DeviceRecord, now: Moment) -> ev.DomainEvent:
        """Send the prepared request and judge the answer."""
        domain = record.domain
        if domain.deadline is not None and now.now > domain.deadline:
            late = TransportError(
                "brski.no-answer",
                f"{domain.registrar} answered 202 for {PATIENCE.days} days",
                clause="RFC 8995 §5.6",
            )
            return self._failed(record, late, now)
        attempt = brski.Attempt(domain.nonce, domain.pvr, domain.registrar_certificate)
        try:
            factory = self._env.factory()
            link = self._link_to_same_registrar(record, factory, now)
            cloud = self._is_cloud(record, link, now)
            exchange = brski.obtain(attempt, self._trust(factory), secured(link), now, cloud=cloud)
            outcome = drive(exchange, link)
        except KeyStoreError as error:
            return self._interrupted(record, error, now)
        except TransportError as error:
            return self._interrupted(record, error, now) if domain.polls else self._failed(record, error, now)
        except HoldfastError as error:
            return self._failed(record, error, now)
        match outcome:
            case Pending(retry_after):
                began = domain.deadline - PATIENCE if domain.deadline else now.now
                return ev.VoucherPending(later(now.now, patience(retry_after, now.now - began)))
            case Rejected():
                return self._failed(record, outcome, now)
            case Moved():
                return self._moved(record, outcome, now, cloud=cloud)
        if not outcome.est_server:
            link.authenticate()
        pinned = outcome.pinned.public_bytes(Encoding.DER)
        return ev.VoucherAccepted(
            voucher=outcome.voucher,
            anchor=Anchor(pinned, Provenance.VOUCHER, now.now),
            seen=outcome.created_on,
            est_server=outcome.est_server,
        )

    def _link_to_same_registrar(self, record: DeviceRecord, factory: FactoryIdentity, now: Moment) -> Link:
        """The open provisional connection, or a new one if its server shows the same certificate.

        The voucher request names one registrar certificate; on another server it would prove a proximity
        that does not exist (RFC 8995 §5.2, §5.6).
        """
        link = self._connection.current
        if link is None:
            endpoint = Endpoint.parse(record.domain.registrar)
            link = self._meet(record, endpoint, factory_client(factory), now)
        if secured(link).peer_chain[:1] != (record.domain.registrar_certificate,):
            raise TrustError(
                "brski.registrar-changed",
                f"{record.domain.registrar} shows another certificate than the voucher request names",
                clause="RFC 8995 §5.6",
            )
        return link

    def _trust(self, factory: FactoryIdentity) -> VoucherTrust:
        manufacturer = self._env.settings.manufacturer
        return VoucherTrust(
            manufacturer_anchors=self._env.manufacturer_anchors,
            signer_pins=manufacturer.voucher_signers,
            serial_number=factory.serial_number,
            aki=factory.aki,
            allow_nonceless=manufacturer.allow_nonceless,
            assertions=manufacturer.assertions,
        )

    def _is_cloud(self, record: DeviceRecord, link: Link, now: Moment) -> bool:
        """Whether the maker's anchors vouch for the server, by its name: the maker's own registrar, or one on
        the way from it to our owner's."""
        anchors = self._env.settings.manufacturer.cloud_anchors
        if anchors is None or not by_the_cloud(record):
            return False
        host = Endpoint.parse(record.domain.registrar).host
        try:
            shown = load_chain(secured(link).peer_chain)
            validate(shown, read_certificates(anchors), now, Rule.tls_server(host, allow_cmcra=False))
        except (TrustError, RemoteProtocolError, ValueError):
            return False
        return True

    def _moved(self, record: DeviceRecord, moved: Moved, now: Moment, *, cloud: bool) -> ev.DomainEvent:
        """Whether to follow. Of registrars for which nobody vouches, one may send us on, once; of those for
        which the maker's anchors do, a chain may, in which none comes twice."""
        visited = (*record.domain.visited, record.domain.registrar)
        try:
            target = str(Endpoint.parse(moved.location))
            if by_the_cloud(record) and not cloud:
                raise TrustError(
                    "brski.redirect-unvalidated",
                    f"{record.domain.registrar} sends us to {target}, but the maker's anchors do not know it",
                    clause="draft-ietf-anima-brski-cloud-16 §3.3.1",
                )
            if cloud and moved.status != 307:
                raise RemoteProtocolError(
                    "brski.redirect-status",
                    f"HTTP {moved.status} to {target}: a cloud registrar sends us on with 307 alone",
                    clause="draft-ietf-anima-brski-cloud-16 §3.2.2",
                )
            if record.domain.redirected and not cloud:
                raise TrustError(
                    "brski.redirect-again", f"redirected twice, now to {target}", clause="RFC 8995 §5.6"
                )
            if target in visited:
                raise RemoteProtocolError(
                    "brski.redirect-loop",
                    f"redirected to {target}, where it was before",
                    clause="draft-ietf-anima-brski-cloud-16 §3.3.1",
                )
            if len(visited) > MOST_REDIRECTS:
                raise RemoteProtocolError(
                    "brski.redirect-limit",
                    f"redirected to {target} after {len(visited)} registrars",
                    clause="draft-ietf-anima-brski-cloud-16 §3.3.1",
                )
        except HoldfastError as error:
            return self._failed(record, error, now)
        return ev.RegistrarMoved(target)

    def _failed(
        self, record: DeviceRecord, cause: HoldfastError | Rejected, now: Moment
    ) -> ev.BootstrapFailed:
        """On to the next registrar at once; after the last of the list, back off."""
        self._connection.close()
        last = last_of_all(record, self._env.settings)
        due = next_attempt(record.schedule, cause, now, self._env.random) if last else None
        return ev.BootstrapFailed(trouble(cause, now), due, lies(cause))

    def _interrupted(
        self, record: DeviceRecord, cause: HoldfastError, now: Moment
    ) -> ev.BootstrapInterrupted:
        self._connection.close()
        due = next_attempt(record.schedule, cause, now, self._env.random)
        return ev.BootstrapInterrupted(trouble(cause, now), due)
