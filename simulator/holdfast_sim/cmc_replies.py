"""How a PKIResponse is put together and signed, and how it lies: one change each, for one check to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, der
from holdfast.wire.cmc import proofs
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import PublishedAnchors
from holdfast.wire.cmc.messages import Content, Control, PkiData, PkiResponse
from holdfast.wire.cmc.status import PendInfo, StatusInfo
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.model import Chain

from . import ca
from .ca import Credential, Validity
from .issue import USAGE
from .world import World

Due = Callable[[str], bool]


class CmcFailed(Exception):
    """The request is answered with a failure."""

    def __init__(self, reason: FailInfo, text: str, status: Status = Status.FAILED) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What will be said: a status, controls besides, certificates and CRLs in the bag.

    ``simple``: nothing is said but by the bag."""

    status: Status = Status.SUCCESS
    part: int = 0
    fail: FailInfo | None = None
    text: str = ""
    pend: PendInfo | None = None
    certificates: Chain = ()
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    controls: tuple[tuple[str, bytes], ...] = ()
    contents: tuple[Content, ...] = ()
    simple: bool = False
    extended: str = ""

    @classmethod
    def failed(cls, failure: CmcFailed, part: int) -> Answer:
        reason = failure.reason if failure.status is Status.FAILED else None
        return cls(failure.status, part, reason, failure.text)


def signed(world: World, due: Due, asked: PkiData | None, answer: Answer) -> bytes:
    """The DER of the response to *asked* (None: it could not be read)."""
    instead = due("simple-instead")
    if instead or answer.simple:
        if answer.crls:
            return cms.crls_only(answer.crls)
        return cms.certs_only(answer.certificates or (world.domain.issuing.certificate,))
    controls = [*_echoes(world, due, asked), *_status(world, due, answer), *answer.controls]
    bag = answer.certificates
    if world.cmc.publish:
        control, anchors = _published(world, due)
        controls.append(control)
        bag = tuple(dict.fromkeys((*bag, *anchors)))
    if due("two-nonces"):
        controls.append((words.RECIPIENT_NONCE, der.octets(bytes(16))))
    numbered = tuple(Control(n, oid, (value,)) for n, (oid, value) in enumerate(controls, 101))
    if due("doubled-part"):
        numbered = tuple(replace(c, number=101) for c in numbered)
    return _wrapped(world, due, PkiResponse(numbered, answer.contents).encode(), bag)


def authority(world: World) -> Credential:
    """Who signs."""
    return world.domain.registrar if world.cmc.authority == "ra" else world.domain.issuing.credential


def changed(due: Due, answer: Answer) -> Answer:
    """*answer*, or what the fault that is due makes of it."""
    for kind, change in _CHANGES.items():
        if due(kind):
            answer = change(answer)
    return answer


def _refused(reason: FailInfo) -> Callable[[Answer], Answer]:
    return lambda a: Answer(Status.FAILED, a.part, reason, "a simulated fault")


_CHANGES: dict[str, Callable[[Answer], Answer]] = {
    "refuse": _refused(FailInfo.BAD_REQUEST),
    "bad-identity": _refused(FailInfo.BAD_IDENTITY),
    "try-later": _refused(FailInfo.TRY_LATER),
    "no-support": lambda a: Answer(Status.NO_SUPPORT, a.part, text="a simulated fault"),
    "extended": lambda a: Answer(Status.FAILED, a.part, text="a simulated fault", extended="1.3.6.1.4.1.5"),
    "other-part": lambda a: replace(a, part=77),
    "no-certificate": lambda a: replace(a, certificates=()),
    "no-token": lambda a: replace(a, pend=None),
    "contradiction": lambda a: replace(a, status=Status.SUCCESS, fail=FailInfo.BAD_ALG),
    "keeps-waiting": lambda a: Answer(Status.PENDING, a.part),
}


def _echoes(world: World, due: Due, asked: PkiData | None) -> list[tuple[str, bytes]]:
    """What repeats the request. Lies that leave one out or change it stand here, too."""
    echoes = [(words.SENDER_NONCE, der.octets(world.random(16)))]
    wanted = (
        (words.TRANSACTION_ID, words.TRANSACTION_ID, "transaction", der.integer(7)),
        (words.SENDER_NONCE, words.RECIPIENT_NONCE, "nonce", der.octets(bytes(16))),
        (words.DATA_RETURN, words.DATA_RETURN, "data", der.octets(b"other data")),
    )
    for source, target, what, wrong in wanted:
        found = None if asked is None else asked.control(source)
        if found is None or due(f"no-{what}"):
            continue
        echoes.append((target, wrong if due(f"wrong-{what}") else found.value))
    return echoes


def _status(world: World, due: Due, answer: Answer) -> list[tuple[str, bytes]]:
    info = StatusInfo(
        answer.status,
        ((answer.part,),),
        answer.text,
        answer.fail,
        answer.pend,
        answer.extended,
        der.null() if answer.extended else b"",
    )
    found = [(words.STATUS_INFO_V2, info.encode())]
    if due("old-status"):
        return [(words.STATUS_INFO, info.encode_v1())]
    return [*found, (words.STATUS_INFO, info.encode_v1())] if world.cmc.sha1 else found


def _published(world: World, due: Due) -> tuple[tuple[str, bytes], Chain]:
    """All anchors of the domain, by their hashes."""
    anchors = world.domain.anchors
    if due("anchors-leaf"):
        anchors = (world.domain.registrar.certificate,)
    world.cmc_desk.published += 1
    algorithm = proofs.SHA1 if due("anchors-sha1") else proofs.SHA256
    hashes = tuple(proofs.hash_of(algorithm, c.public_bytes(Encoding.DER), sha1=True) for c in anchors)
    value = PublishedAnchors(world.cmc_desk.published, algorithm, hashes)
    return (words.TRUSTED_ANCHORS, value.encode()), () if due("anchors-missing") else anchors


def _wrapped(world: World, due: Due, content: bytes, bag: Chain) -> bytes:
    kind = words.PKI_DATA if due("wrong-content") else words.PKI_RESPONSE
    if due("unsigned"):
        made = cms.unsigned(content, kind, bag)
    else:
        by = _signer(world, due)
        at = world.now() - (timedelta(days=9) if due("old-time") else timedelta())
        moment = None if due("no-time") else at
        made = cms.sign(content, kind, by.key, by.certificate, (*by.chain[1:-1], *bag), signing_time=moment)
        if due("tampered"):
            at_octet = made.index(content) + len(content) - 1
            made = made[:at_octet] + bytes((made[at_octet] ^ 1,)) + made[at_octet + 1 :]
    before, world.cmc_desk.last = world.cmc_desk.last, made
    return before if due("replayed") else made


def _signer(world: World, due: Due) -> Credential:
    honest = authority(world)
    if due("foreign-signer"):
        return world.impostor.registrar
    if due("device-signer"):
        if world.cmc_desk.device is None:
            life = Validity.starting(world.now(), timedelta(days=30))
            world.cmc_desk.device = world.domain.issuing.credential_for(
                ca.name("Another Device"), life, ca.end_entity(USAGE), world.standing.algorithm
            )
        return world.cmc_desk.device
    return honest


def bag(world: World, certificates: tuple[x509.Certificate, ...]) -> Chain:
    """What comes with a certificate: the CAs that lead to the root, which is known."""
    return tuple(dict.fromkeys((*certificates, world.domain.issuing.certificate)))
