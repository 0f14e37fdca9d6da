"""CMP answers: header, protection and certificates, right or spoilt by a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire import algorithm_oids
from holdfast.wire.cmp import bodies
from holdfast.wire.cmp.bodies import ErrorContent, Failure, Status, StatusInfo
from holdfast.wire.cmp.mac import MacParameters
from holdfast.wire.cmp.message import Body, Header, Message, encode
from holdfast.wire.cmp.protection import Protector, SharedSecret, Signer
from holdfast.wire.identified import NULL_DN, Algorithm, Info
from holdfast.wire.model import KeyAlgorithm, RandomBytes

from . import ca
from .ca import Credential
from .faults import FaultPlan

if TYPE_CHECKING:
    from .world import World

NONCE = 16
BOMB = 1_000_000_000

Due = Callable[[str], bool]


class CmpRefused(Exception):
    """A request is answered with an error message."""

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(failure, text)
        self.failure = failure
        self.text = text

    @property
    def status(self) -> StatusInfo:
        return StatusInfo(Status.REJECTION, (self.text,), frozenset({self.failure}))

    @property
    def reply(self) -> Reply:
        return Reply(Body.ERROR, ErrorContent(self.status).encode())


@dataclass(frozen=True, slots=True)
class Reply:
    """What is to be said: a body, entries of generalInfo, and certificates besides the protector's."""

    kind: Body
    content: bytes = field(repr=False)
    infos: tuple[Info, ...] = ()
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Keyed:
    """Protects answers as the request was protected: secret, algorithms and iterations; the salt is new.

    ``forged``: the MAC is nothing, which nobody finds out who does not make the iterations.
    """

    reference: str
    secret: bytes = field(repr=False)
    parameters: MacParameters
    extra_certs: tuple[bytes, ...] = ()
    forged: bool = False

    @property
    def sender(self) -> bytes:
        return SharedSecret(self.reference, self.secret).sender

    @property
    def key_id(self) -> bytes:
        return self.reference.encode()

    def start(self, random: RandomBytes) -> tuple[Algorithm, Callable[[bytes], bytes]]:
        parameters = self.parameters.again(random(16))
        if self.forged:
            return parameters.algorithm(), lambda _: bytes(32)
        return parameters.algorithm(), lambda data: parameters.compute(self.secret, data)


def due_for(plan: FaultPlan, request: Message) -> Due:
    """Whether a fault happens to the answer to *request*."""
    places = (f"cmp-{request.kind.label}", "cmp")
    return lambda kind: any(plan.due(place, kind) for place in places)


def send(
    world: World, due: Due, request: Message, keyed: Keyed | None, reply: Reply, *, protected: bool = True
) -> tuple[bytes, bytes]:
    """The DER of the answer to *request*, and the nonce in it."""
    if due("wrong-body"):
        reply = replace(reply, kind=Body.GENP, content=bodies.general())
    protector = _protector(world, keyed, due)
    algorithm, protect = protector.start(world.random)
    header = _header(world, due, request.header, protector)
    header = replace(header, protection=algorithm, general_info=reply.infos)
    if not protected or due("unprotected"):
        header = replace(header, protection=None)
        return encode(header, reply.kind, reply.content), header.sender_nonce
    extra = tuple(dict.fromkeys((*protector.extra_certs, *reply.certificates)))
    if due("no-signer-certificate"):
        extra = reply.certificates
    data = encode(header, reply.kind, reply.content, protect=protect, extra_certs=extra)
    if due("tampered"):
        data = data.replace(header.sender_nonce, bytes(NONCE), 1)
    return data, header.sender_nonce


def _header(world: World, due: Due, asked: Header, protector: Protector) -> Header:
    nonce = asked.sender_nonce
    if due("wrong-nonce"):
        nonce = world.random(NONCE)
    elif due("no-nonce"):
        nonce = b""
    pvno = asked.pvno if asked.pvno in world.cmp.versions else 2
    impostor = world.impostor.registrar
    return Header(
        sender=Signer(impostor.chain, impostor.key).sender if due("wrong-sender") else protector.sender,
        recipient=asked.sender or NULL_DN,
        pvno=1 if due("wrong-version") else pvno,
        message_time=world.now(),
        sender_kid=protector.key_id,
        transaction=world.random(16) if due("wrong-transaction") else asked.transaction,
        sender_nonce=world.random(NONCE),
        recip_nonce=nonce,
    )


def _protector(world: World, keyed: Keyed | None, due: Due) -> Protector:
    if keyed is not None and not due("signature-instead"):
        return _mac(keyed, due)
    if due("mac-instead"):
        return SharedSecret("intruder", b"known to nobody")
    registrar, authority = world.domain.registrar, world.domain.issuing.credential
    own, other = (registrar, authority) if world.cmp.authority == "ra" else (authority, registrar)
    if due("foreign-signer"):
        own = world.impostor.registrar
    elif due("device-signer"):
        own = _device(world)
    elif due("other-signer"):
        own = other
    return Signer(own.chain, own.key)


def _mac(keyed: Keyed, due: Due) -> Keyed:
    parameters = keyed.parameters
    if due("mac-bomb"):
        return replace(keyed, parameters=replace(parameters, iterations=BOMB), forged=True)
    if due("mac-weak"):
        return replace(keyed, parameters=replace(parameters, iterations=1))
    if due("mac-sha1"):
        return replace(keyed, parameters=replace(parameters, mac=algorithm_oids.HMAC_SHA1))
    if due("wrong-secret"):
        return replace(keyed, secret=keyed.secret + b"!")
    return keyed


def _device(world: World) -> Credential:
    """An end entity of the domain that is no authority."""
    desk = world.cmp_desk
    if desk.device is None:
        life = ca.Validity.starting(world.now(), world.est.life)
        usages = ca.end_entity(ExtendedKeyUsageOID.CLIENT_AUTH)
        issuing = world.domain.issuing
        desk.device = issuing.credential_for(ca.name("Some Device"), life, usages, KeyAlgorithm.P256)
    return desk.device


def encoded(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    """The DER of each."""
    return tuple(c.public_bytes(Encoding.DER) for c in certificates)
