"""Is our own certificate revoked? Asked where it says so; failing soft, believing only signatures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cryptography import x509

from holdfast.host.config import IdentitySettings
from holdfast.host.drive import drive
from holdfast.life import events as ev
from holdfast.life.record import CredentialState, DeviceRecord
from holdfast.life.standing import SPREAD, next_look
from holdfast.wire.certificates import signed_by
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Exchange, Moment
from holdfast.wire.revocation import crl, ocsp
from holdfast.wire.revocation.sources import Place, crl_places, ocsp_places
from holdfast.wire.revocation.standing import Standing
from holdfast.worker.agenda import FARTHEST, leaf_of, waiting
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.links import Connection, Endpoint
from holdfast.worker.ports import Environment
from holdfast.worker.setbacks import trouble


class Inquiry:
    """Performs ``CheckStanding`` for one identity."""

    def __init__(self, env: Environment, connection: Connection, settings: IdentitySettings) -> None:
        self._env = env
        self._connection = connection
        self._settings = settings

    def due(self, record: DeviceRecord, now: Moment) -> bool:
        """Whether it is time to ask. Never without a place to ask and an issuer to check the answer by."""
        entry = record.identity(self._settings.name)
        if not self._settings.revocation.check or entry.credential.state is not CredentialState.ACTIVE:
            return False
        longest = self._interval * (1 + SPREAD)
        if waiting(entry.standing, now, farthest=max(FARTHEST, longest)):
            return False
        leaf = leaf_of(entry)
        return bool(ocsp_places(leaf) or crl_places(leaf)) and self._issuer(record, leaf) is not None

    def ask(self, record: DeviceRecord, now: Moment) -> ev.StandingKnown | ev.CredentialRevoked:
        """Ask each place in turn until one gives a verified answer."""
        entry = record.identity(self._settings.name)
        leaf = leaf_of(entry)
        issuer = self._issuer(record, leaf)
        interval = self._interval
        last: HoldfastError = TransportError("revocation.no-place", "there is nobody to ask")
        if issuer is not None:
            for place, exchange in self._exchanges(leaf, issuer, now):
                try:
                    standing = drive(exchange, self._connection.plain(_endpoint(place)))
                except (TransportError, RemoteProtocolError, TrustError) as error:
                    last = error
                    continue
                finally:
                    self._connection.close()
                if standing.revoked:
                    return ev.CredentialRevoked(trouble(_revoked(standing, place), now))
                due = next_look(now, interval, self._env.random, until=standing.until)
                return ev.StandingKnown(due)
        due = next_look(now, interval, self._env.random, failed=entry.standing.attempts + 1)
        return ev.StandingKnown(due, trouble(last, now))

    @property
    def _interval(self) -> timedelta:
        return timedelta(hours=self._settings.revocation.interval_hours)

    def _exchanges(
        self, leaf: x509.Certificate, issuer: x509.Certificate, now: Moment
    ) -> Iterator[tuple[Place, Exchange[Standing]]]:
        for place in ocsp_places(leaf):
            yield place, ocsp.exchange(ocsp.ask(leaf, issuer, self._env.random), place.target, now)
        for place in crl_places(leaf):
            yield place, crl.exchange(leaf, issuer, place.target, now)

    def _issuer(self, record: DeviceRecord, leaf: x509.Certificate) -> x509.Certificate | None:
        """The certificate of the CA that signed *leaf*, of those that were checked before they were kept."""
        entry = record.identity(self._settings.name)
        known = (
            *load_chain(entry.credential.chain[1:]),
            *certificates_of(record.domain.anchors),
            *load_chain(record.domain.intermediates),
        )
        return next((c for c in known if signed_by(leaf, c)), None)


def _endpoint(place: Place) -> Endpoint:
    return Endpoint(place.host, place.port, plain=True)


def _revoked(standing: Standing, place: Place) -> TrustError:
    since = f" since {standing.at}" if standing.at is not None else ""
    why = f" ({standing.reason})" if standing.reason else ""
    return TrustError("certificate.revoked", f"{place.url} says: revoked{since}{why}", clause="RFC 5280 §3.3")
