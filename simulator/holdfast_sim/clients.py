"""Who is at the other end: the client certificate of a connection, judged by the servers' own clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cryptography import x509

from holdfast.wire.brski.messages import serial_number
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, ClockState, Moment

from .answers import Peer, Refused
from .world import World


class Kind(Enum):
    IDEVID = "idevid"  # made by the manufacturer
    LDEVID = "ldevid"  # made by this domain


@dataclass(frozen=True, slots=True)
class Client:
    certificate: x509.Certificate
    kind: Kind

    @property
    def name(self) -> str:
        return self.certificate.subject.rfc4514_string()

    @property
    def serial_number(self) -> str:
        """The device's serial number. Raises Refused where the certificate names none."""
        try:
            return serial_number(self.certificate)
        except RemoteProtocolError as error:
            raise Refused(403, f"the client certificate names no device: {error.detail}") from error


def identify(world: World, peer: Peer) -> Client | None:
    """The client behind *peer*, None without a certificate. Raises Refused (403) for a bad one."""
    if peer.certificate is None:
        return None
    reasons = []
    for kind, anchors, intermediates in _sources(world):
        try:
            moment = _moment(world, kind, peer.certificate)
            validate((*peer.chain, *intermediates), anchors, moment, Rule.client())
        except HoldfastError as error:
            reasons.append(f"{kind.value}: {error.code}")
            continue
        if kind is Kind.LDEVID and peer.certificate.serial_number in world.revoked:
            raise Refused(403, "the client certificate is revoked")
        return Client(peer.certificate, kind)
    raise Refused(403, f"the client certificate is not accepted ({', '.join(reasons)})")


def _moment(world: World, kind: Kind, certificate: x509.Certificate) -> Moment:
    """When to judge *certificate*: at its end, if that has passed and is forgiven."""
    end = certificate.not_valid_after_utc
    if kind is Kind.LDEVID and world.est.renew_expired and end < world.now():
        return Moment(end, end, ClockState.TRUSTED)
    return world.moment()


def require_idevid(world: World, peer: Peer) -> Client:
    client = identify(world, peer)
    if client is None:
        raise Refused(401, "a client certificate (IDevID) is required")
    if client.kind is not Kind.IDEVID:
        raise Refused(403, "the client certificate is no IDevID of an accepted manufacturer")
    return client


def check_signer(world: World, signer: x509.Certificate, chain: Chain) -> None:
    """Raises TrustError unless *signer* holds an IDevID of the manufacturer."""
    manufacturer = world.manufacturer
    path = (signer, *chain, *manufacturer.intermediates)
    try:
        validate(path, manufacturer.anchors, world.moment(), Rule.client())
    except HoldfastError as error:
        raise TrustError("sim.idevid", f"no IDevID of this manufacturer: {error}") from error


def _sources(world: World) -> tuple[tuple[Kind, Chain, Chain], ...]:
    maker, domain = world.manufacturer, world.domain
    return (
        (Kind.LDEVID, domain.anchors, domain.intermediates),
        (Kind.IDEVID, maker.anchors, maker.intermediates),
    )
