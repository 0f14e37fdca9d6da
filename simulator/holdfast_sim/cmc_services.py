"""What the CMC server does besides issuing: confirmations, revocation, certificates and CRLs on request."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import (
    read_accepted,
    read_get_cert,
    read_get_crl,
    read_integer,
    read_revoke_request,
)
from holdfast.wire.cmc.messages import PkiData
from holdfast.wire.cmc.status import read_status
from holdfast.wire.cmc.vocabulary import FailInfo
from holdfast.wire.revocation.reason import Reason

from . import cmc_requests as asking
from .clients import Kind
from .cmc_replies import Answer, CmcFailed
from .cmc_requests import Speaker
from .faults import CMC, FaultPlan
from .standing import crl
from .world import World


@dataclass(frozen=True, slots=True)
class Desk:
    """One message at work: the world, its faults, and the place that they are declared for."""

    world: World
    plan: FaultPlan
    place: str

    def due(self, kind: str) -> bool:
        return self.plan.due(CMC, kind) or self.plan.due(self.place, kind)


def transaction_of(data: PkiData) -> int:
    control = data.control(words.TRANSACTION_ID)
    return 0 if control is None else read_integer(control)


def confirmed(desk: Desk, data: PkiData, _speaker: Speaker) -> Answer:
    world = desk.world
    control = data.control(words.CONFIRM_CERT_ACCEPTANCE)
    assert control is not None
    wanted = read_accepted(control.value)
    known = world.cmc_desk.transactions.get(transaction_of(data))
    right = known is not None and any(c.serial_number == wanted.serial for c in known.issued)
    if known is None or not right or known.refused:
        raise CmcFailed(FailInfo.BAD_CERT_ID, "that certificate does not wait for a confirmation")
    known.confirmed = True
    return Answer(part=control.number)


def told(desk: Desk, data: PkiData, _speaker: Speaker) -> Answer:
    """A failure on the client's side: a certificate that it does not want is revoked."""
    world = desk.world
    control = data.control(words.STATUS_INFO_V2)
    assert control is not None
    world.cmc_desk.failures.append(read_status(control.value).word)
    known = world.cmc_desk.transactions.get(transaction_of(data))
    if known is not None:
        known.refused = True
        world.revoked.update(c.serial_number for c in known.issued)
    return Answer(part=control.number)


def revoke(desk: Desk, data: PkiData, speaker: Speaker) -> Answer:
    world = desk.world
    control = data.control(words.REVOKE_REQUEST)
    assert control is not None
    asked = read_revoke_request(control.value)
    client = speaker.client
    issued = {i.certificate.serial_number: i.certificate for i in world.issued}
    certificate = issued.get(asked.certificate.serial)
    if certificate is None or certificate.issuer.public_bytes() != asked.certificate.issuer:
        raise CmcFailed(FailInfo.BAD_CERT_ID, "no certificate of ours")
    own = client is not None and client.kind is Kind.LDEVID and client.certificate == certificate
    for_others = client is not None and asking.speaks_for_others(client)
    if not own and not for_others and asked.secret not in world.cmc.secrets.values():
        raise CmcFailed(FailInfo.BAD_IDENTITY, "neither its holder nor a registration authority asks")
    if asked.reason is Reason.REMOVE_FROM_CRL:
        world.revoked.discard(certificate.serial_number)
    else:
        world.revoked.add(certificate.serial_number)
    return Answer(part=control.number)


def certificate(desk: Desk, data: PkiData, _speaker: Speaker) -> Answer:
    world = desk.world
    control = data.control(words.GET_CERT)
    assert control is not None
    wanted = read_get_cert(control.value)
    for record in world.issued:
        found = record.certificate
        if (found.issuer.public_bytes(), found.serial_number) == (wanted.issuer, wanted.serial):
            return Answer(part=control.number, certificates=(found,), simple=world.cmc.simple)
    raise CmcFailed(FailInfo.BAD_CERT_ID, "no such certificate")


def revocation_list(desk: Desk, data: PkiData, _speaker: Speaker) -> Answer:
    """A CRL comes in a Simple PKI Response: it is signed itself (§6.10)."""
    control = data.control(words.GET_CRL)
    assert control is not None
    issuer = desk.world.domain.issuing.certificate.subject.public_bytes()
    if read_get_crl(control.value) != issuer:
        raise CmcFailed(FailInfo.BAD_CERT_ID, "another CA")
    return Answer(part=control.number, crls=(crl(desk.world, desk.plan),), simple=True)
