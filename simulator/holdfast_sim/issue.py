"""Turn an accepted request into a certificate, or into what a misbehaving CA would make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.model import KeyAlgorithm

from . import ca, standing
from .ca import Authority, Extensions, PublicKey, Validity
from .der import certificates_only
from .faults import FaultPlan
from .world import World

USAGE = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(slots=True)
class Order:
    """What is about to be signed. A fault changes one thing of it."""

    subject: x509.Name
    san: tuple[x509.GeneralName, ...]
    public_key: PublicKey
    validity: Validity
    authority: Authority
    extensions: Extensions

    def sign(self) -> x509.Certificate:
        return self.authority.sign(self.subject, self.public_key, self.validity, self.extensions)


def order(
    world: World,
    public_key: object,
    subject: x509.Name,
    san: tuple[x509.GeneralName, ...],
) -> Order:
    """An honest order: an end entity with the configured usages, valid from now for the configured life."""
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise TypeError("csr.parse let a foreign key type through")
    validity = Validity.starting(world.now(), world.est.life)
    extensions = [*ca.end_entity(*world.est.usages, san=san), *standing.extensions(world)]
    return Order(subject, san, public_key, validity, world.domain.issuing, extensions)


def fulfil(world: World, plan: FaultPlan, where: str, wanted: Order) -> tuple[x509.Certificate, bytes]:
    """Sign *wanted*. Returns the certificate and the DER of the answer, which normally carries just it."""
    certificate = sign(world, plan, where, wanted)
    if plan.due(where, "extra-chain"):
        return certificate, certificates_only((certificate, *world.domain.cacerts))
    if plan.due(where, "reordered-chain"):
        return certificate, certificates_only((certificate, *world.domain.cacerts), backwards=True)
    if plan.due(where, "two-leaves"):
        return certificate, certificates_only((certificate, wanted.sign()))
    if plan.due(where, "no-certificates"):
        return certificate, certificates_only(())
    return certificate, certificates_only((certificate,))


def sign(world: World, plan: FaultPlan, where: str, wanted: Order) -> x509.Certificate:
    """Sign *wanted*, spoilt by what is due at *where*."""
    for kind, spoil in _SPOILED_ORDERS.items():
        if plan.due(where, kind):
            spoil(world, wanted)
    return wanted.sign()


def _key_mismatch(_: World, wanted: Order) -> None:
    wanted.public_key = ca.new_key(KeyAlgorithm.P256).public_key()


def _issued_ca(_: World, wanted: Order) -> None:
    wanted.extensions = ca.CA_EXTENSIONS


def _foreign_ca(world: World, wanted: Order) -> None:
    wanted.authority = world.impostor.issuing


def _expired(world: World, wanted: Order) -> None:
    wanted.validity = _days(world.now(), -10, -1)


def _future(world: World, wanted: Order) -> None:
    wanted.validity = _days(world.now(), 365, 400)


def _wrong_subject(_: World, wanted: Order) -> None:
    wanted.subject = ca.name("Somebody Else")


def _rollover(world: World, wanted: Order) -> None:
    world.roll_over()
    wanted.authority = world.domain.issuing


def _wrong_usage(_: World, wanted: Order) -> None:
    wanted.extensions = ca.end_entity(ExtendedKeyUsageOID.SERVER_AUTH, san=wanted.san)


def _days(now: datetime, first: int, last: int) -> Validity:
    start = now.replace(microsecond=0)
    return Validity(start + timedelta(days=first), start + timedelta(days=last))


_SPOILED_ORDERS: dict[str, Callable[[World, Order], None]] = {
    "key-mismatch": _key_mismatch,
    "issued-ca": _issued_ca,
    "foreign-ca": _foreign_ca,
    "issued-expired": _expired,
    "issued-future": _future,
    "wrong-subject": _wrong_subject,
    "wrong-usage": _wrong_usage,
    "rollover": _rollover,
}
