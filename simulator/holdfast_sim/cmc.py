"""The CMC server (RFC 10002, 10003): an RA and CA behind ``/cmc`` and EST's ``/fullcmc``.

Mistakes become signed failures; only what is no CMC at all becomes an HTTP status.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from cryptography import x509

from holdfast.wire import cms, cms_reading
from holdfast.wire.algorithms import PublicKey, accepted_key, spki
from holdfast.wire.cmc import site
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.batch import bundled
from holdfast.wire.cmc.controls import (
    numbers,
    read_octets,
)
from holdfast.wire.cmc.messages import Content, Pkcs10, PkiData, Request, read_data
from holdfast.wire.cmc.status import PendInfo
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse

from . import cmc_requests as asking
from . import cmc_services as services
from . import est, issue
from .answers import Peer, Refused, header, path_of, require_method
from .clients import identify
from .cmc_desk import CmcTransaction
from .cmc_replies import Answer, CmcFailed, bag, changed, signed
from .cmc_requests import Asked, Speaker
from .cmc_services import Desk, transaction_of
from .der import from_base64, to_base64
from .faults import CMC, FaultPlan
from .world import MAX_RECORDS, World

NOBODY = "nobody"
_ARC = "1.3.6.1.5.5.7.7."
_KNOWN = frozenset(oid for oid in map(str, vars(words).values()) if oid.startswith(_ARC) and oid != _ARC)
_PLACES = {
    words.QUERY_PENDING: "cmc-query",
    words.CONFIRM_CERT_ACCEPTANCE: "cmc-confirm",
    words.REVOKE_REQUEST: "cmc-revoke",
    words.GET_CERT: "cmc-get-cert",
    words.GET_CRL: "cmc-get-crl",
    words.BATCH_REQUESTS: "cmc-batch",
    words.DECRYPTED_POP: "cmc-prove",
}


def serves(world: World, request: HttpRequest) -> bool:
    """Whether the path is one of ours."""
    return path_of(request) == world.cmc.path or est.operation(world, request) == "fullcmc"


def handle(world: World, plan: FaultPlan, request: HttpRequest, peer: Peer) -> HttpResponse:
    """Serve one CMC request. Raises Refused for what is no CMC."""
    require_method(request, "POST")
    over_est = path_of(request) != world.cmc.path
    kind = (header(request, "Content-Type") or "").partition(";")[0].strip().lower()
    if kind not in {site.PKCS7, site.PKCS10} or (over_est and kind == site.PKCS10):
        raise Refused(415, f"expected {site.FULL_REQUEST}")
    body = from_base64(request.body) if over_est else request.body
    made, failed = _simple(world, plan, body, peer) if kind == site.PKCS10 else answer(world, plan, body)
    bare = not cms_reading.signed_data(made, limit=1 << 20).signers and not failed
    named = site.CERTS_ONLY if bare else site.FULL_RESPONSE
    headers = (("Content-Type", named), *((("Content-Transfer-Encoding", "base64"),) if over_est else ()))
    status = 400 if (failed and world.cmc.http_errors) or plan.due(CMC, "http-error") else 200
    return HttpResponse(status, headers, to_base64(made) if over_est else made)


def answer(world: World, plan: FaultPlan, der: bytes) -> tuple[bytes, bool]:
    """The response to one Full PKI Request, and whether it is a failure."""
    data: PkiData | None = None
    desk = Desk(world, plan, CMC)
    try:
        data = _claimed(der)
        desk = Desk(world, plan, _place(data))
        said = _decided(desk, data, _speaker(world, der))
    except CmcFailed as failure:
        said = Answer.failed(failure, _part(data))
    except (HoldfastError, x509.ExtensionNotFound) as error:
        said = Answer.failed(CmcFailed(FailInfo.BAD_MESSAGE_CHECK, str(error)), _part(data))
    said = changed(desk.due, said)
    failed = said.status in (Status.FAILED, Status.NO_SUPPORT)
    return signed(world, desk.due, data, said), failed


def _simple(world: World, plan: FaultPlan, body: bytes, peer: Peer) -> tuple[bytes, bool]:
    """A PKCS#10 alone: TLS says who asks. A failure is a Full PKI Response about body part 1."""
    desk = Desk(world, plan, "cmc-enroll")
    try:
        client = identify(world, peer)
        if client is None:
            raise CmcFailed(FailInfo.BAD_IDENTITY, "a simple request needs a client certificate in TLS")
        found = asking.read(Pkcs10(1, body))
        number = int.from_bytes(hashlib.sha256(spki(found.asked)).digest(), "big")
        said = _granted(desk, PkiData(), Speaker(client.name, client), found, number)
        said = replace(said, simple=said.status is Status.SUCCESS)
    except CmcFailed as failure:
        said = Answer.failed(failure, 1)
    except Refused as refused:
        said = Answer.failed(CmcFailed(FailInfo.BAD_IDENTITY, refused.text), 1)
    said = changed(desk.due, said)
    return signed(world, desk.due, None, said), said.status in (Status.FAILED, Status.NO_SUPPORT)


def _claimed(der: bytes) -> PkiData:
    """The PKIData, whoever signed it: a refusal repeats its nonce, too. Raises CmcFailed, HoldfastError."""
    fields = cms_reading.signed_data(der, limit=1 << 20)
    if fields.content_type != words.PKI_DATA or fields.content is None:
        raise CmcFailed(FailInfo.BAD_REQUEST, "no PKIData")
    return read_data(fields.content)


def _speaker(world: World, der: bytes) -> Speaker:
    """Who signed it. Raises CmcFailed and HoldfastError."""
    fields = cms_reading.signed_data(der, limit=1 << 20)
    if not fields.signers:
        return Speaker(NOBODY)
    if fields.signers[0].key_identifier is not None and not fields.certificates:
        cms.open_by_key(der, lambda c, k: _signing_key(world, c, k))
        return Speaker("its own key")
    opened = cms.open_signed(der)
    others = tuple(c for c in opened.certificates if c != opened.signer)
    try:
        client = identify(world, Peer((opened.signer, *others), ()))
    except Refused as refused:
        raise CmcFailed(FailInfo.BAD_MESSAGE_CHECK, refused.text) from refused
    assert client is not None
    return Speaker(client.name, client)


def _signing_key(world: World, content: bytes, identifier: bytes) -> PublicKey:
    """Of the request in the message, or of the one that the transaction is about."""
    data = read_data(content)
    if data.requests:
        return asking.key_of(content, identifier)
    known = world.cmc_desk.transactions.get(transaction_of(data))
    if known is None:
        raise CmcFailed(FailInfo.BAD_CERT_ID, "no such transaction")
    return accepted_key(known.asked)


def _place(data: PkiData) -> str:
    found = next((place for oid, place in _PLACES.items() if data.control(oid) is not None), None)
    return found or ("cmc-enroll" if data.requests else CMC)


def _part(data: PkiData | None) -> int:
    return data.requests[0].number if data is not None and data.requests else 0


def _decided(desk: Desk, data: PkiData, speaker: Speaker) -> Answer:
    unknown = [c.oid for c in data.controls if c.oid not in _KNOWN]
    if unknown:
        raise CmcFailed(FailInfo.BAD_REQUEST, f"the control {unknown[0]} is not known here")
    for oid, (serve, unsigned) in _SERVICES.items():
        if data.control(oid) is not None:
            if speaker.name == NOBODY and not unsigned:
                break
            return serve(desk, data, speaker)
    if speaker.name == NOBODY:
        raise CmcFailed(FailInfo.BAD_MESSAGE_CHECK, "nobody signed it")
    if not data.requests:
        return Answer()
    if len(data.requests) != 1:
        raise CmcFailed(FailInfo.BAD_REQUEST, "one certificate at a time")
    return _enroll(desk, data, speaker, data.requests[0])


# --- certificates --------------------------------------------------------------------------------


def _enroll(desk: Desk, data: PkiData, speaker: Speaker, request: Request) -> Answer:
    return _granted(desk, data, speaker, asking.read(request), transaction_of(data))


def _granted(desk: Desk, data: PkiData, speaker: Speaker, found: Asked, number: int) -> Answer:
    name = asking.authorise(desk.world, data, speaker, found)
    known = _known(desk.world, found, number)
    wanted = desk.world.cmc.challenge or not found.signed
    if wanted and not known.proved:
        known.proved = asking.proved(data, found, known.hidden) and not desk.due("challenge-again")
        if not known.proved:
            known.hidden = desk.world.random(32)
            control = (words.ENCRYPTED_POP, asking.challenge(desk.world, desk.due, found, known.hidden))
            part, why = found.request.number, "show that the key decrypts"
            return Answer(Status.FAILED, part, FailInfo.POP_REQUIRED, why, controls=(control,))
    return _progress(desk, data, speaker, (found, known, name))


def _known(world: World, found: Asked, number: int) -> CmcTransaction:
    """The transaction; the same request again is the same transaction. Raises CmcFailed."""
    transactions = world.cmc_desk.transactions
    known = transactions.get(number)
    if known is None:
        known = CmcTransaction(spki(found.asked), found.asked, world.random(16))
        transactions[number] = known
        while len(transactions) > MAX_RECORDS:
            del transactions[next(iter(transactions))]
    if known.key != spki(found.asked):
        raise CmcFailed(FailInfo.BAD_REQUEST, "this transaction is about another key")
    return known


def _progress(desk: Desk, data: PkiData, speaker: Speaker, what: tuple[Asked, CmcTransaction, str]) -> Answer:
    found, known, name = what
    world, part = desk.world, found.request.number
    if known.polls < world.cmc.polls:
        known.polls += 1
        time = world.now() + timedelta(seconds=world.cmc.check_after)
        return Answer(Status.PENDING, part, text="waiting for approval", pend=PendInfo(known.token, time))
    if not known.issued:
        known.issued = _issued(desk, data, speaker, found, name)
    certificates = bag(world, known.issued)
    if world.cmc.confirm and not known.confirmed:
        return Answer(Status.CONFIRM_REQUIRED, part, certificates=certificates)
    return Answer(part=part, certificates=certificates, simple=world.cmc.simple)


def _issued(
    desk: Desk, data: PkiData, speaker: Speaker, found: Asked, name: str
) -> tuple[x509.Certificate, ...]:
    world = desk.world
    subject, san = asking.names(found)
    extra = asking.added(data, speaker, found.request.number)
    wanted = issue.order(world, found.asked.public_key(), subject, san)
    replaced = {type(value) for value, _ in extra}
    wanted.extensions = [*(e for e in wanted.extensions if type(e[0]) not in replaced), *extra]
    certificate = issue.sign(world, desk.plan, desk.place, wanted)
    world.note_issued(certificate, "cmc", name)
    if desk.due("two-leaves"):
        return certificate, wanted.sign()
    return (certificate,)


def _query(desk: Desk, data: PkiData, speaker: Speaker) -> Answer:
    control = data.control(words.QUERY_PENDING)
    assert control is not None
    token, known = read_octets(control), desk.world.cmc_desk.transactions.get(transaction_of(data))
    if known is not None and desk.due("forget"):
        del desk.world.cmc_desk.transactions[transaction_of(data)]
        known = None
    if known is None or known.token != token:
        raise CmcFailed(FailInfo.BAD_CERT_ID, "no such request waits here")
    found = Asked(Pkcs10(1, b""), known.asked, signed=True)
    return _progress(desk, data, speaker, (found, known, speaker.name))


def _batch(desk: Desk, data: PkiData, _speaker: Speaker) -> Answer:
    """Each request of the batch is answered by itself; failures stay inside (§6.17)."""
    contents = bundled(data)
    answers = tuple(
        Content(200 + n, answer(desk.world, desk.plan, each.cms)[0]) for n, each in enumerate(contents, 1)
    )
    control = (words.BATCH_RESPONSES, numbers(tuple(each.number for each in answers)))
    return Answer(controls=(control,), contents=answers)


_SERVICES: dict[str, tuple[Callable[[Desk, PkiData, Speaker], Answer], bool]] = {
    words.BATCH_REQUESTS: (_batch, True),
    words.REVOKE_REQUEST: (services.revoke, True),
    words.CONFIRM_CERT_ACCEPTANCE: (services.confirmed, False),
    words.STATUS_INFO_V2: (services.told, False),
    words.QUERY_PENDING: (_query, False),
    words.GET_CERT: (services.certificate, False),
    words.GET_CRL: (services.revocation_list, False),
}
"""What each control asks for, and whether that needs no signature."""
