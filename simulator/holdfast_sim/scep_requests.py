"""PKIOperation: open a message, decide, and make the CertRep (RFC 8894 §3.3), honest or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms
from holdfast.wire.algorithms import spki
from holdfast.wire.chain import Rule, validate
from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.cms_enveloped import (
    ForCertificate,
    ForPassword,
    WithKey,
    WithPassword,
    envelope,
    open_enveloped,
)
from holdfast.wire.csr import challenge_password, parse
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.scep import messages
from holdfast.wire.scep.messages import Message, Received
from holdfast.wire.scep.vocabulary import FailInfo, MessageType, PkiStatus

from . import ca, issue, scep_replies
from .answers import Refused
from .ca import Credential, Validity
from .enroll import alternative_names
from .faults import FaultPlan
from .scep_authority import ScepAuthority, Transaction
from .world import MAX_RECORDS, World

DER = Encoding.DER
WHERE = "pkioperation"
_CIPHERS = frozenset(ContentCipher)


class Failed(Exception):
    """The request is answered with FAILURE."""

    def __init__(self, reason: FailInfo, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text


class Waits(Exception):
    """The request is answered with PENDING."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An opened message, and the password that opens answers to it if there is one."""

    received: Received
    content: bytes
    password: bytes | None


def answer(world: World, plan: FaultPlan, der: bytes) -> bytes:
    """The reply to one pkiMessage. Raises Refused for bytes that are none."""
    desk = world.scep_desk
    authority = desk.at_work(world.domain, world.scep.mode, world.now(), world.random)
    try:
        received = messages.read(der, sha1=world.scep.sha1)
    except HoldfastError as error:
        raise Refused(400, f"no pkiMessage: {error}") from error
    request = received.message
    reply = Message(
        MessageType.CERT_REP,
        request.transaction,
        world.random(16),
        recipient_nonce=request.sender_nonce,
        status=PkiStatus.SUCCESS,
    )
    try:
        asked = _open(world, authority, received)
        content, password = _decide(world, plan, authority, asked)
        reply = replace(reply, envelope=_seal(world, plan, received.signer, content, password))
    except Failed as failure:
        reply = replace(reply, status=PkiStatus.FAILURE, fail_info=failure.reason, fail_text=failure.text)
    except Waits:
        reply = replace(reply, status=PkiStatus.PENDING)
    return scep_replies.signed(world, plan, authority, reply)


def stranger(world: World) -> Credential:
    """A certificate like any device of the domain has it, whose key lies here in software."""
    life = Validity.starting(world.now(), timedelta(days=30))
    usages = ca.end_entity(issue.USAGE)
    return world.domain.issuing.credential_for(ca.name("Another Device"), life, usages, KeyAlgorithm.RSA2048)


def _open(world: World, authority: ScepAuthority, received: Received) -> Asked:
    sealed = received.message.envelope
    key = authority.recipient.key
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            opener = WithKey(key, authority.recipient.certificate)
            return Asked(received, open_enveloped(sealed, opener, world.random, ciphers=_CIPHERS), None)
        for challenge in world.scep.challenges:
            try:
                by = WithPassword(challenge.encode())
                content = open_enveloped(sealed, by, world.random, ciphers=_CIPHERS)
                return Asked(received, content, challenge.encode())
            except HoldfastError:
                continue
    except HoldfastError as error:
        raise Failed(FailInfo.BAD_MESSAGE_CHECK, f"the envelope does not open: {error.code}") from error
    raise Failed(FailInfo.BAD_MESSAGE_CHECK, "no password opens the envelope")


def _decide(
    world: World, plan: FaultPlan, authority: ScepAuthority, asked: Asked
) -> tuple[bytes, bytes | None]:
    """The degenerate SignedData that answers *asked*, and the password to encrypt it with if need be."""
    match asked.received.message.type:
        case MessageType.PKCS_REQ | MessageType.RENEWAL_REQ:
            return _request(world, plan, authority, asked)
        case MessageType.CERT_POLL:
            return _poll(world, plan, authority, asked)
        case MessageType.GET_CERT:
            return cms.certs_only([_find(world, authority, asked.content)]), asked.password
        case MessageType.GET_CRL:
            _issuer(authority, asked.content)
            return cms.crls_only([_crl(world, authority)]), asked.password
        case MessageType.CERT_REP:
            raise Failed(FailInfo.BAD_REQUEST, "a reply is no request")


def _request(
    world: World, plan: FaultPlan, authority: ScepAuthority, asked: Asked
) -> tuple[bytes, bytes | None]:
    try:
        csr = parse(asked.content)
        challenge = challenge_password(csr)
    except HoldfastError as error:
        raise Failed(FailInfo.BAD_REQUEST, f"the certificate request is not usable: {error}") from error
    transactions, number = world.scep_desk.transactions, asked.received.message.transaction
    known = transactions.get(number)
    password = asked.password or (challenge.encode() if challenge else None)
    if known is not None:
        if known.csr != asked.content:
            raise Failed(FailInfo.BAD_REQUEST, "this transactionID is of another request")
        return _progress(world, plan, authority, number, known), password
    _authorise(world, authority, asked.received, csr, challenge)
    if plan.due(WHERE, "refuse"):
        raise Failed(FailInfo.BAD_REQUEST, "refused by policy (a simulated fault)")
    if any(t.key == spki(csr) and not t.issued for t in transactions.values()):
        raise Failed(FailInfo.BAD_REQUEST, "another request for this key is under way")
    transactions[number] = Transaction(asked.content, spki(csr))
    while len(transactions) > MAX_RECORDS:
        del transactions[next(iter(transactions))]
    return _progress(world, plan, authority, number, transactions[number]), password


def _authorise(
    world: World,
    authority: ScepAuthority,
    received: Received,
    csr: x509.CertificateSigningRequest,
    challenge: str | None,
) -> None:
    """A certificate of ours is enough for its own subject; anybody else needs a challenge, once."""
    if received.signer.issuer != received.signer.subject:
        _check_current(world, authority, received)
        if received.signer.subject != csr.subject:
            raise Failed(FailInfo.BAD_REQUEST, "the subject differs from the current certificate's")
        return
    if received.message.type is MessageType.RENEWAL_REQ:
        raise Failed(FailInfo.BAD_REQUEST, "a renewal is signed by the certificate that it renews")
    policy, used = world.scep, world.scep_desk.used
    if not policy.challenges:
        return
    if challenge is None or challenge not in policy.challenges or challenge in used:
        raise Failed(FailInfo.BAD_REQUEST, "the challengePassword is wrong or was used")
    used.add(challenge)


def _check_current(world: World, authority: ScepAuthority, received: Received) -> None:
    issuers = (authority.issuing.certificate, *world.domain.intermediates, *world.scep_desk.former)
    given = (received.signer, *received.certificates, *issuers)
    try:
        validate(given, world.domain.anchors, world.moment(), Rule.client())
    except HoldfastError as error:
        raise Failed(FailInfo.BAD_MESSAGE_CHECK, f"the signer is not accepted: {error.code}") from error
    if received.signer.serial_number in world.revoked:
        raise Failed(FailInfo.BAD_REQUEST, "the signer's certificate is revoked")


def _poll(
    world: World, plan: FaultPlan, authority: ScepAuthority, asked: Asked
) -> tuple[bytes, bytes | None]:
    try:
        issuer, subject = messages.read_issuer_and_subject(asked.content)
    except HoldfastError as error:
        raise Failed(FailInfo.BAD_REQUEST, str(error)) from error
    number = asked.received.message.transaction
    known = world.scep_desk.transactions.get(number)
    ours = {each.subject.public_bytes() for each in authority.chain}  # strongSwan names the RA
    if known is None or issuer not in ours:
        raise Failed(FailInfo.BAD_CERT_ID, "no such request waits here")
    csr = parse(known.csr)
    if subject != csr.subject.public_bytes():
        raise Failed(FailInfo.BAD_CERT_ID, "the request that waits has another subject")
    challenge = challenge_password(csr)
    password = asked.password or (challenge.encode() if challenge else None)
    return _progress(world, plan, authority, number, known), password


def _progress(
    world: World, plan: FaultPlan, authority: ScepAuthority, number: str, known: Transaction
) -> bytes:
    """Issue, unless somebody still has to look at it. The same request gets the same certificate."""
    if known.polls < world.scep.polls:
        known.polls += 1
        raise Waits
    if plan.due(WHERE, "forget"):
        del world.scep_desk.transactions[number]
        raise Failed(FailInfo.BAD_CERT_ID, "no such request waits here")
    if not known.issued:
        csr = parse(known.csr)
        wanted = issue.order(world, csr.public_key(), csr.subject, alternative_names(csr))
        wanted.authority = authority.issuing
        wanted.validity = Validity.starting(world.now(), world.scep.life)
        certificate, known.issued = issue.fulfil(world, plan, WHERE, wanted)
        world.note_issued(certificate, "scep", csr.subject.rfc4514_string())
    return known.issued


def _seal(
    world: World, plan: FaultPlan, signer: x509.Certificate, content: bytes, password: bytes | None
) -> bytes:
    key = signer.public_key()
    cipher = ContentCipher.DES3 if world.scep.des3 else ContentCipher.AES128
    if isinstance(key, rsa.RSAPublicKey):
        sealed = envelope(content, ForCertificate(signer), world.random, cipher=cipher)
    elif password is not None:
        sealed = envelope(content, ForPassword(password, 2000), world.random, cipher=cipher)
    else:
        raise Failed(FailInfo.BAD_ALG, "the signer's key does not decrypt, and there is no password")
    return scep_replies.spoiled(world, plan, sealed, content)


def _issuer(authority: ScepAuthority, content: bytes) -> int:
    try:
        issuer, serial = messages.read_issuer_and_serial(content)
    except HoldfastError as error:
        raise Failed(FailInfo.BAD_REQUEST, str(error)) from error
    if issuer != authority.issuing.certificate.subject.public_bytes():
        raise Failed(FailInfo.BAD_CERT_ID, "another CA")
    return serial


def _find(world: World, authority: ScepAuthority, content: bytes) -> x509.Certificate:
    serial = _issuer(authority, content)
    for record in world.issued:
        if record.certificate.serial_number == serial:
            return record.certificate
    raise Failed(FailInfo.BAD_CERT_ID, "no such certificate")


def _crl(world: World, authority: ScepAuthority) -> bytes:
    now = world.now().replace(microsecond=0)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.issuing.certificate.subject)
    builder = builder.last_update(now).next_update(now + timedelta(days=1))
    for serial in sorted(world.revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.issuing.credential.key, hashes.SHA256()).public_bytes(DER)
