"""The CMP server (RFC 9810, 9483, 9811): an RA and CA that also judges what it is asked.

It serves ``/.well-known/cmp``, with a profile and an operation behind it or not, and ``/pkix/``. Mistakes
become error messages; only what is no CMP at all becomes an HTTP status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates, der
from holdfast.wire.cmp import bodies, mac, oids, paths
from holdfast.wire.cmp.bodies import WHOLE_MESSAGE, ErrorContent, Failure, PollReply, Status, StatusInfo
from holdfast.wire.cmp.message import Body, Header, Message, parse
from holdfast.wire.cmp.protection import same_name
from holdfast.wire.errors import HoldfastError
from holdfast.wire.identified import NULL_DN, named
from holdfast.wire.message_signatures import HASHES, hash_of, is_signature, verify_by
from holdfast.wire.model import HttpRequest, HttpResponse

from . import cmp_kem, cmp_requests, cmp_support
from .answers import Peer, Refused, path_of, require_method, require_type
from .clients import Client, identify
from .cmp_desk import Conversation
from .cmp_replies import CmpRefused, Due, Keyed, Reply, due_for, send
from .faults import FaultPlan
from .world import MAX_RECORDS, World

_PLACE = re.compile(
    rf"{re.escape(paths.WELL_KNOWN)}(?:/p/[A-Za-z0-9._~-]+)?(?:/(?P<operation>[a-z]+))?/?|/pkix/?|/"
)
_OPERATIONS = frozenset({*paths.OPERATIONS.values(), *paths.SUPPORT.values()})
_REQUESTS = frozenset(cmp_requests.ANSWERS)


def serves(request: HttpRequest) -> bool:
    """Whether the path is one of ours."""
    return path_of(request).startswith((paths.WELL_KNOWN, "/pkix"))


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who protected a request: a client by its certificate, or a reference by its secret."""

    name: str
    client: Client | None = None
    keyed: Keyed | None = None


def handle(world: World, plan: FaultPlan, request: HttpRequest) -> HttpResponse:
    """Serve one CMP request. Raises Refused for what is no CMP."""
    found = _PLACE.fullmatch(path_of(request))
    if found is None or (found["operation"] or "nested") not in _OPERATIONS:
        raise Refused(404, "no such CMP service")
    require_method(request, "POST")
    require_type(request, paths.MEDIA_TYPE)
    try:
        message = parse(request.body)
    except HoldfastError as error:
        nobody = Message(Header(NULL_DN, NULL_DN), Body.ERROR, b"")
        refused = CmpRefused(Failure.BAD_DATA_FORMAT, error.detail)
        return paths.answer(send(world, lambda _: False, nobody, None, refused.reply, protected=False)[0])
    if message.kind is Body.NESTED:
        return paths.answer(_nested(world, plan, message))
    return paths.answer(_process(world, plan, message))


def _nested(world: World, plan: FaultPlan, message: Message) -> bytes:
    """Another RA in front of us: it added its protection to one message, or sends several at once."""
    due = due_for(plan, message)
    try:
        inner = bodies.read_nested(message.content)
        speaker = _authenticate(world, message)
    except CmpRefused as refused:
        return send(world, due, message, None, refused.reply, protected=False)[0]
    answers = [_process(world, plan, each) for each in inner if each.kind is not Body.NESTED]
    if len(answers) == 1:
        return answers[0]
    return send(world, due, message, speaker.keyed, Reply(Body.NESTED, bodies.nested(answers)))[0]


def _process(world: World, plan: FaultPlan, message: Message) -> bytes:
    due = due_for(plan, message)
    speaker: Speaker | None = None
    try:
        speaker = _authenticate(world, message)
        conversation = _conversation(world, message, speaker)
        reply = _serve(world, plan, message, speaker, conversation)
    except CmpRefused as refused:
        conversation, reply = None, refused.reply
    except HoldfastError as error:
        conversation, reply = None, CmpRefused(Failure.BAD_DATA_FORMAT, str(error)).reply
    if due("unprotected-error"):
        reply, speaker = CmpRefused(Failure.SYSTEM_FAILURE, "a simulated fault").reply, None
    elif due("refuse"):
        reply = CmpRefused(Failure.NOT_AUTHORIZED, "a simulated fault").reply
    keyed = speaker.keyed if speaker is not None else None
    # Nobody can check a signature who asked under a secret, so an error without a common secret stays bare.
    bare = speaker is None and (message.header.protection is None or mac.is_mac(message.header.protection))
    bare = bare or due("unprotected-error")
    if reply.kind is Body.GENP and cmp_kem.asks(message):
        bare = not world.cmp.kem_signed
    if conversation is not None and due("first-nonce"):
        message = replace(message, header=replace(message.header, sender_nonce=conversation.first_nonce))
    data, nonce = send(world, due, message, keyed, reply, protected=not bare)
    if conversation is not None:
        conversation.nonces.append(nonce)
    return data


# --- who speaks -----------------------------------------------------------------------------------


def _authenticate(world: World, message: Message) -> Speaker:
    header = message.header
    if header.pvno not in world.cmp.versions:
        raise CmpRefused(Failure.UNSUPPORTED_VERSION, f"pvno {header.pvno} is not known here")
    if cmp_kem.asks(message):
        return Speaker(f"KEM key of {cmp_kem.known(world, message).subject.rfc4514_string()}")
    if header.protection is None or message.protection is None:
        raise CmpRefused(Failure.BAD_MESSAGE_CHECK, "the message is not protected")
    try:
        if header.protection.oid == oids.KEM_BASED_MAC:
            found = world.cmp_desk.conversations.get(header.transaction)
            return Speaker(cmp_kem.authenticate(message, found))
        if mac.is_mac(header.protection):
            return _by_secret(world, message)
        return _by_signature(world, message)
    except (HoldfastError, Refused) as error:
        detail = error.text if isinstance(error, Refused) else str(error)
        failure = Failure.BAD_MESSAGE_CHECK
        if isinstance(error, Refused):
            failure = Failure.CERT_REVOKED if "revoked" in error.text else Failure.SIGNER_NOT_TRUSTED
        raise CmpRefused(failure, detail) from error


def _by_secret(world: World, message: Message) -> Speaker:
    header = message.header
    reference = header.sender_kid.decode("utf-8", "replace")
    secret = world.cmp.secrets.get(reference)
    assert header.protection is not None
    assert message.protection is not None
    if secret is None:
        raise CmpRefused(Failure.BAD_MESSAGE_CHECK, "no secret has this reference")
    parameters = mac.check(header.protection, secret, (message.protected, message.protection))
    return Speaker(f"secret {reference}", keyed=Keyed(reference, secret, parameters))


def _by_signature(world: World, message: Message) -> Speaker:
    header = message.header
    assert header.protection is not None
    assert message.protection is not None
    if not is_signature(header.protection):
        raise CmpRefused(Failure.BAD_ALG, f"protection by {header.protection.oid}")
    chain = certificates.load_all(message.extra_certs)
    if not chain:
        raise CmpRefused(Failure.ADD_INFO_NOT_AVAILABLE, "extraCerts lacks the protecting certificate")
    if not same_name(named(chain[0].subject), header.sender):
        raise CmpRefused(
            Failure.BAD_MESSAGE_CHECK, "the sender is not the subject of the first extra certificate"
        )
    verify_by(chain[0], header.protection, message.protection, message.protected)
    client = identify(world, Peer(chain, ()))
    assert client is not None
    return Speaker(client.name, client=client)


# --- which transaction ------------------------------------------------------------------------------


def _conversation(world: World, message: Message, speaker: Speaker) -> Conversation:
    header, known = message.header, world.cmp_desk.conversations
    _check_header(world, header)
    found = known.get(header.transaction)
    agreed = found is not None and found.shared and found.kind is Body.GENM and message.kind in _REQUESTS
    if agreed or message.kind in {Body.CERT_CONF, Body.POLL_REQ}:
        if found is None:
            raise CmpRefused(Failure.BAD_REQUEST, "no such transaction")
        if found.speaker != speaker.name:
            raise CmpRefused(Failure.WRONG_INTEGRITY, "somebody else began this transaction")
        if header.recip_nonce not in found.nonces:
            raise CmpRefused(Failure.BAD_RECIPIENT_NONCE, "recipNonce is none of ours")
        if agreed:
            found.kind, found.first_nonce = message.kind, header.sender_nonce
        return found
    if found is not None:
        raise CmpRefused(Failure.TRANSACTION_ID_IN_USE, "this transactionID is in use")
    if header.recip_nonce:
        raise CmpRefused(Failure.BAD_RECIPIENT_NONCE, "a first message has no recipNonce")
    known[header.transaction] = Conversation(speaker.name, message.kind, header.sender_nonce)
    while len(known) > MAX_RECORDS:
        del known[next(iter(known))]
    return known[header.transaction]


def _check_header(world: World, header: Header) -> None:
    if header.message_time is not None and abs(header.message_time - world.now()) > world.cmp.window:
        raise CmpRefused(Failure.BAD_TIME, f"messageTime {header.message_time} is too far from now")
    if len(header.sender_nonce) < 16:
        raise CmpRefused(Failure.BAD_SENDER_NONCE, "senderNonce has less than 128 bits")
    if not header.transaction:
        raise CmpRefused(Failure.BAD_DATA_FORMAT, "transactionID is absent")


# --- what is asked ----------------------------------------------------------------------------------


def _serve(
    world: World, plan: FaultPlan, message: Message, speaker: Speaker, conversation: Conversation
) -> Reply:
    _check_profile(world, message)
    due = due_for(plan, message)
    if message.kind in _REQUESTS:
        return _request(world, plan, message, speaker, conversation)
    match message.kind:
        case Body.CERT_CONF:
            reply = _confirm(world, message, conversation)
        case Body.POLL_REQ:
            return _poll(world, due, message, conversation)
        case Body.GENM if cmp_kem.asks(message):
            return cmp_kem.offer(world, due, message, conversation)
        case Body.GENM:
            reply = cmp_support.answer(world, due, message)
        case Body.RR:
            reply = cmp_support.revoke(world, due, message, speaker.client)
        case kind:
            raise CmpRefused(Failure.BAD_REQUEST, f"{kind.label} is not for a server")
    if world.cmp.other_polls:
        return _put_off(conversation, reply, WHOLE_MESSAGE, world.cmp.other_polls)
    return reply


def _check_profile(world: World, message: Message) -> None:
    found, known = message.header.info(oids.CERT_PROFILE), world.cmp.profiles
    if found is None or known is None:
        return
    names = [each.text() for each in der.read_one(found.value).each()]
    if not set(names) <= known:
        raise CmpRefused(Failure.BAD_REQUEST, "that certProfile does not exist")


def _request(
    world: World, plan: FaultPlan, message: Message, speaker: Speaker, conversation: Conversation
) -> Reply:
    due = due_for(plan, message)
    wanted = cmp_requests.read(world, message, speaker.client)
    keyed = speaker.keyed is not None
    certificate, reply = cmp_requests.grant(world, plan, due, message, wanted, keyed=keyed)
    world.note_issued(certificate, f"cmp-{message.kind.label}", speaker.name)
    if not any(i.oid == oids.IMPLICIT_CONFIRM for i in reply.infos):
        conversation.unconfirmed = certificate
    if world.cmp.polls and world.cmp.by_error:
        return _put_off(conversation, reply, WHOLE_MESSAGE, world.cmp.polls)
    if world.cmp.polls:
        _put_off(conversation, reply, wanted.request_id, world.cmp.polls)
        return cmp_requests.waiting(message.kind, wanted.request_id)
    return reply


def _put_off(conversation: Conversation, reply: Reply, request_id: int, polls: int) -> Reply:
    conversation.ready = (reply, polls)
    conversation.request_id = request_id
    status = StatusInfo(Status.WAITING, ("the answer takes its time",))
    return Reply(Body.ERROR, ErrorContent(status).encode())


def _poll(world: World, due: Due, message: Message, conversation: Conversation) -> Reply:
    asked = bodies.read_poll_request(message.content)
    if conversation.ready is None or asked != (conversation.request_id,):
        raise CmpRefused(Failure.BAD_REQUEST, "nothing is waiting under this certReqId")
    reply, left = conversation.ready
    if left > 0:
        conversation.ready = (reply, left - 1)
        entry = PollReply(conversation.request_id, world.cmp.check_after, ("not yet",))
        return Reply(Body.POLL_REP, bodies.poll_reply(*(entry,) * (2 if due("two-polls") else 1)))
    conversation.ready = None
    return reply


def _confirm(world: World, message: Message, conversation: Conversation) -> Reply:
    certificate = conversation.unconfirmed
    if conversation.confirmed:
        raise CmpRefused(Failure.CERT_CONFIRMED, "the certificate is confirmed already")
    if certificate is None:
        raise CmpRefused(Failure.BAD_REQUEST, "nothing is to be confirmed")
    statuses = bodies.read_cert_confirm(message.content)
    if len(statuses) != 1:
        raise CmpRefused(Failure.BAD_REQUEST, "one certificate was issued")
    status = statuses[0]
    if status.cert_hash != _hash(certificate, status.hash_algorithm.oid if status.hash_algorithm else None):
        raise CmpRefused(Failure.BAD_CERT_ID, "certHash is not that of the certificate")
    conversation.confirmed = True
    if status.status is not None and not status.status.granted:
        conversation.rejected = True
        world.revoked.add(certificate.serial_number)
    return Reply(Body.PKICONF, der.null())


def _hash(certificate: x509.Certificate, named_hash: str | None) -> bytes:
    digest = certificate.signature_hash_algorithm
    if named_hash is not None:
        if named_hash not in HASHES:
            raise CmpRefused(Failure.BAD_ALG, "that hashAlg is not known here")
        return hash_of(certificate.public_bytes(Encoding.DER), HASHES[named_hash]())
    if digest is None:
        raise CmpRefused(Failure.BAD_CERT_ID, "the certificate's signature has no hash: hashAlg is needed")
    return hash_of(certificate.public_bytes(Encoding.DER), digest)  # type: ignore[arg-type]
