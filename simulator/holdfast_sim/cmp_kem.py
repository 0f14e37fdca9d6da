"""The CMP server's side of protection by a client's KEM key (RFC 9810 §5.1.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import algorithm_oids, der
from holdfast.wire.cmp import bodies, kem, oids
from holdfast.wire.cmp.bodies import Failure
from holdfast.wire.cmp.kem import KemCiphertext
from holdfast.wire.cmp.kem_peer import encapsulate
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.protection import same_name
from holdfast.wire.errors import HoldfastError
from holdfast.wire.identified import Algorithm, Info, named

from .cmp_replies import CmpRefused, Due, Reply

if TYPE_CHECKING:
    from .cmp_desk import Conversation
    from .world import World


def asks(message: Message) -> bool:
    """Whether *message* asks for a ciphertext, without protection."""
    if message.kind is not Body.GENM or message.header.protection is not None:
        return False
    try:
        return [i.oid for i in bodies.read_general(message.content)] == [oids.KEM_CIPHERTEXT]
    except HoldfastError:
        return False


def known(world: World, message: Message) -> x509.Certificate:
    """The KEM certificate that came along, if it is one of those that are known. Raises CmpRefused."""
    encoded = message.extra_certs[0] if message.extra_certs else b""
    found = next((c for c in world.cmp.kem if c.public_bytes(Encoding.DER) == encoded), None)
    if found is None or not same_name(named(found.subject), message.header.sender):
        raise CmpRefused(Failure.SIGNER_NOT_TRUSTED, "no known KEM certificate of the sender came")
    return found


def offer(world: World, due: Due, message: Message, conversation: Conversation) -> Reply:
    """The genp with a fresh ciphertext; its secret stays with the conversation."""
    conversation.shared, info = encapsulate(known(world, message))
    value = info.encode()
    if due("no-ciphertext"):
        value = b""
    elif due("wrong-ciphertext"):
        value = encapsulate(known(world, message))[1].encode()
    elif due("short-ciphertext"):
        value = KemCiphertext(info.kem, info.ciphertext[:-1]).encode()
    elif due("huge-ciphertext"):
        value = KemCiphertext(info.kem, info.ciphertext * 20).encode()
    elif due("other-kem"):
        value = KemCiphertext(oids.ML_KEM_512, info.ciphertext[:768]).encode()
    elif due("unknown-kem"):
        value = der.sequence(Algorithm(algorithm_oids.EC).encode(), der.octets(info.ciphertext))
    asked = Info(oids.CONFIRM_WAIT_TIME if due("wrong-info") else oids.KEM_CIPHERTEXT, value)
    return Reply(Body.GENP, bodies.general(asked))


def authenticate(message: Message, conversation: Conversation | None) -> str:
    """Who protected *message*. Raises CmpRefused, and what the check of the MAC raises."""
    if conversation is None or not conversation.shared:
        raise CmpRefused(Failure.BAD_MESSAGE_CHECK, "nothing was encapsulated in this transaction")
    kem.check(message, conversation.shared, message.header.transaction)
    return conversation.speaker
