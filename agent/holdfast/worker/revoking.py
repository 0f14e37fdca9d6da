"""Have the present certificate of an identity revoked, because its operator wants it (``holdfast revoke``).

The rung that issued it is asked first: its CA is the one that can. EST has no operation for this and
points to CMC at its /fullcmc (RFC 7030 §4.3); SCEP has none at all. That the certificate is revoked is
recorded as soon as the CA has said so, like what an OCSP responder says: the next step asks for another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509

from holdfast.host.config import AcmeSettings, CmcSettings, CmpSettings, EstSettings, IdentitySettings
from holdfast.host.drive import drive
from holdfast.host.transport import Link
from holdfast.life import events as ev
from holdfast.life.machine import decide
from holdfast.life.record import CredentialState, DeviceRecord
from holdfast.wire.acme import client as acme
from holdfast.wire.acme.session import Session
from holdfast.wire.cmc import services as cmc
from holdfast.wire.cmc.answer import Judge
from holdfast.wire.cmc.client import CmcProtocol
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.conversation import Conversation
from holdfast.wire.cmc.signer import Identity as CmcIdentity
from holdfast.wire.cmc.site import Site
from holdfast.wire.cmp import revocation as cmp
from holdfast.wire.cmp.client import CmpProtocol
from holdfast.wire.cmp.protection import SignedByAuthority, Signer
from holdfast.wire.cmp.transaction import Transaction
from holdfast.wire.errors import ConfigError, HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.messages import FULLCMC, path
from holdfast.wire.model import Exchange, Moment, Pending, Rejected
from holdfast.wire.revocation.reason import Reason
from holdfast.worker.agenda import leaf_of
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.enrollment import Enrollment, RefusedError
from holdfast.worker.links import Client, Connection
from holdfast.worker.ports import Environment
from holdfast.worker.rungs import Rung, rung_of
from holdfast.worker.setbacks import trouble

BY_OPERATOR: Final = "certificate.revoked-by-operator"
"""What the record gives as the reason afterwards."""

_ABLE: Final = (EstSettings, CmcSettings, CmpSettings, AcmeSettings)
MOST_POLLS: Final = 20


@dataclass(frozen=True, slots=True)
class Revoked:
    """The CA behind ``rung`` has revoked ``certificate``; ``notice`` is what it said besides."""

    rung: str
    certificate: x509.Certificate
    notice: str


class Revocation:
    """One identity's present certificate, and those who may revoke it."""

    def __init__(self, env: Environment, connection: Connection, settings: IdentitySettings) -> None:
        self._env = env
        self._connection = connection
        self._settings = settings

    def candidates(self, record: DeviceRecord) -> tuple[str, ...]:
        """The rungs that can revoke, the one that answered last first. Raises ConfigError
        ``revoke.no-protocol`` where there is none."""
        settings = self._settings
        last = record.identity(settings.name).ladder.rung
        able = [n for n, p in zip(settings.rungs, settings.protocols, strict=True) if isinstance(p, _ABLE)]
        if not able:
            detail = (
                f"{settings.name} has no protocol that can revoke: est (by its /fullcmc), cmc, cmp or acme"
            )
            raise ConfigError("revoke.no-protocol", detail)
        return tuple(sorted(able, key=lambda name: name != last))

    def perform(self, record: DeviceRecord, reason: Reason, now: Moment) -> tuple[Revoked, DeviceRecord]:
        """Ask for the revocation, and commit that it happened.

        Raises ConfigError ``revoke.no-certificate``, ``revoke.no-protocol``; RefusedError with what the CA
        said; what the exchange and the connection raise.
        """
        entry = record.identity(self._settings.name)
        if entry.credential.state is not CredentialState.ACTIVE:
            detail = f"{entry.name} has no certificate in use: it is {entry.credential.state.value}"
            raise ConfigError("revoke.no-certificate", detail)
        done = self._ask(record, reason, now)
        told = TrustError(BY_OPERATOR, f"revoked by {done.rung} on request ({reason.word})")
        changed, _ = decide(record, ev.CredentialRevoked(trouble(told, now)), now, identity=entry.name)
        self._env.store.commit(changed)
        return done, changed

    def _ask(self, record: DeviceRecord, reason: Reason, now: Moment) -> Revoked:
        """The first rung that has such an operation decides."""
        last: HoldfastError | None = None
        leaf = leaf_of(record.identity(self._settings.name))
        for name in self.candidates(record):
            rung = rung_of(self._settings, name, record, self._env.random)
            try:
                return Revoked(name, leaf, self._by(rung, record, leaf, reason, now))
            except (RemoteProtocolError, RefusedError) as error:
                if not error.unsupported:
                    raise
                last = error
            finally:
                self._connection.close()
        assert last is not None
        raise last

    def _by(
        self, rung: Rung, record: DeviceRecord, leaf: x509.Certificate, reason: Reason, now: Moment
    ) -> str:
        enrollment = Enrollment(self._env, self._connection, self._settings, lambda: rung)
        client, link, successor = enrollment.presented(record, now)
        outcomes = self._exchanges(rung, record, (client, leaf, reason), link, now)
        for exchange in outcomes:
            outcome = drive(exchange, link, successor)
            if isinstance(outcome, Rejected):
                raise RefusedError(outcome.code, outcome.detail, unsupported=outcome.unsupported)
            if not isinstance(outcome, Pending):
                return outcome
            self._env.clock.wait(max(outcome.retry_after, timedelta(seconds=1)).total_seconds())
        detail = "the CA has not decided yet; ask again later with the same command"
        raise RemoteProtocolError("revoke.pending", detail, busy=True)

    def _exchanges(
        self,
        rung: Rung,
        record: DeviceRecord,
        what: tuple[Client, x509.Certificate, Reason],
        link: Link,
        now: Moment,
    ) -> Iterator[Exchange[str | Pending | Rejected]]:
        """What to say, and what again after each Pending."""
        client, leaf, reason = what
        anchors = certificates_of(rung.anchors or record.domain.anchors)
        helpers = load_chain(record.domain.intermediates)
        random = self._env.random
        match rung.protocol:
            case CmcProtocol() as protocol:
                judge = Judge(anchors, helpers, protocol.pins, protocol.legacy)
                yield self._cmc(protocol.site, judge, what, now)
            case EstProtocol() as protocol:
                site = Site(path(FULLCMC, protocol.label))
                yield self._cmc(site, Judge(anchors, helpers), what, now)
            case CmpProtocol() as protocol:
                verifier = SignedByAuthority(anchors, protocol.pins, helpers)
                signer = Signer(client.chain, client.key)
                transaction = Transaction(protocol.server, signer, verifier, random, random(16))
                yield from self._cmp(transaction, leaf, reason, now)
            case acme.AcmeProtocol() as protocol:
                session = Session(link.tls, client.key, protocol.limits, now)
                yield _acme(session, protocol.directory, leaf, reason)
            case _:
                raise ConfigError("revoke.no-protocol", f"{rung.name} cannot revoke")

    def _cmc(
        self, site: Site, judge: Judge, what: tuple[Client, x509.Certificate, Reason], now: Moment
    ) -> Exchange[str | Pending | Rejected]:
        client, leaf, reason = what
        conversation = Conversation(
            site=site,
            signer=CmcIdentity(client.chain, client.key),
            judge=judge,
            random=self._env.random,
            transaction=int.from_bytes(self._env.random(16), "big"),
        )
        wanted = RevokeRequest(CertificateId.of(leaf), reason)
        outcome = yield from cmc.revoke(conversation, wanted, now)
        return outcome if isinstance(outcome, Rejected) else outcome.notice

    def _cmp(
        self, transaction: Transaction, leaf: x509.Certificate, reason: Reason, now: Moment
    ) -> Iterator[Exchange[str | Pending | Rejected]]:
        tokens: list[bytes] = []
        yield _noticed(cmp.revoke(transaction, leaf, reason, now), tokens.append)
        for _ in range(MOST_POLLS):
            yield _noticed(cmp.revoke_again(transaction, tokens[-1], now), tokens.append)


def _noticed(
    exchange: Exchange[cmp.Revoked | Pending | Rejected], keep: Callable[[bytes], None]
) -> Exchange[str | Pending | Rejected]:
    outcome = yield from exchange
    if isinstance(outcome, Pending):
        keep(outcome.resume)
        return outcome
    return outcome if isinstance(outcome, Rejected) else outcome.notice


def _acme(
    session: Session, directory: str, leaf: x509.Certificate, reason: Reason
) -> Exchange[str | Pending | Rejected]:
    """Signed by the certificate's own key, which needs no account (RFC 8555 §7.6)."""
    yield from session.open(directory)
    yield from acme.revoke(session, leaf, reason=int(reason))
    return ""
