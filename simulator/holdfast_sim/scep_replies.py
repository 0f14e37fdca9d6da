"""How a CertRep is signed and sealed, and how it lies: one change each, so that one check must find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from asn1crypto import cms as asn1_cms
from asn1crypto import core

from holdfast.wire import cms, oids
from holdfast.wire.cms_enveloped import ForCertificate, envelope
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.scep import messages
from holdfast.wire.scep.messages import Message
from holdfast.wire.scep.vocabulary import MessageType, PkiStatus

from . import ca, scep_requests
from .ca import Credential, Validity
from .der import tlv
from .faults import FaultPlan
from .scep_authority import ScepAuthority
from .world import World

WHERE = "pkioperation"


def signed(world: World, plan: FaultPlan, authority: ScepAuthority, reply: Message) -> bytes:
    """The pkiMessage around *reply*."""
    for kind, change in _CHANGES.items():
        if plan.due(WHERE, kind):
            reply = change(reply)
    by = _signer(world, plan, authority)
    made = messages.encode(reply, by.key, by.certificate)
    if plan.due(WHERE, "tampered"):
        made = made.replace(reply.transaction.encode(), reply.transaction[::-1].encode())
    before, world.scep_desk.last = world.scep_desk.last, made
    if plan.due(WHERE, "replayed"):
        return before
    if plan.due(WHERE, "no-attributes"):
        return cms.sign(reply.envelope, oids.CT_DATA, by.key, by.certificate)
    return made


def spoiled(world: World, plan: FaultPlan, sealed: bytes, content: bytes) -> bytes:
    """The envelope *sealed*, or one that its recipient should not accept."""
    if plan.due(WHERE, "wrong-recipient"):
        other = scep_requests.stranger(world)
        return envelope(content, ForCertificate(other.certificate), world.random)
    if plan.due(WHERE, "single-des"):
        return _named_des(sealed)
    if plan.due(WHERE, "garbage-envelope"):
        return sealed[: len(sealed) // 2]
    if plan.due(WHERE, "wrong-key"):
        # The recipient is right and the encrypted key is not: its octets are somebody else's.
        at = sealed.index(tlv(0x04, bytes(256))[:4]) + 4
        return sealed[:at] + bytes(range(1, 129)) + sealed[at + 128 :]
    return sealed


def _named_des(sealed: bytes) -> bytes:
    """The same envelope, said to be single DES. Lengths are written anew from the inside out."""
    info = asn1_cms.ContentInfo.load(sealed)
    encrypted = info["content"]["encrypted_content_info"]
    algorithm = {"algorithm": "des", "parameters": core.OctetString(bytes(8))}
    data = {
        "version": info["content"]["version"].native,
        "recipient_infos": info["content"]["recipient_infos"],
        "encrypted_content_info": {
            "content_type": "data",
            "content_encryption_algorithm": algorithm,
            "encrypted_content": encrypted["encrypted_content"].native,
        },
    }
    whole = {"content_type": "enveloped_data", "content": asn1_cms.EnvelopedData(data)}
    return bytes(asn1_cms.ContentInfo(whole).dump())


def _signer(world: World, plan: FaultPlan, authority: ScepAuthority) -> Credential:
    if plan.due(WHERE, "device-signer"):
        return scep_requests.stranger(world)
    if plan.due(WHERE, "foreign-signer"):
        life = Validity.starting(world.now(), None)
        usages = ca.end_entity()
        by = world.impostor.issuing
        return by.credential_for(authority.signer.certificate.subject, life, usages, KeyAlgorithm.RSA2048)
    return authority.signer


_CHANGES: dict[str, Callable[[Message], Message]] = {
    "wrong-nonce": lambda m: replace(m, recipient_nonce=bytes(16)),
    "no-nonce": lambda m: replace(m, recipient_nonce=b""),
    "wrong-transaction": lambda m: replace(m, transaction="0" * 32),
    "wrong-type-message": lambda m: replace(m, type=MessageType.PKCS_REQ),
    "no-status": lambda m: replace(m, status=None),
    "no-envelope": lambda m: replace(m, envelope=b""),
    "no-fail-info": lambda m: replace(m, status=PkiStatus.FAILURE, fail_info=None, envelope=b""),
}
