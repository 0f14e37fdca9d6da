"""Reading an answer: signed by whom, about what, and to this request?

A Full PKI Response is believed if an authority of the domain signed it, and if it repeats the transaction,
the nonce and the data of the request. A Simple one is unsigned: it can only bring certificates and CRLs,
which prove themselves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from holdfast.wire import chain, cms, cms_reading, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.certificates import load_all
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import read_integer, read_octets
from holdfast.wire.cmc.messages import PkiResponse, read_response
from holdfast.wire.cmc.settings import Legacy
from holdfast.wire.cmc.status import StatusInfo, read_status
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment

MOST_STATUSES: Final = 32
_SHA1_HINT: Final = (
    f"the answer is signed with SHA-1; `legacy: [{Legacy.SHA1.value}]` in the configuration allows it"
)


@dataclass(frozen=True, slots=True)
class Judge:
    """By what answers are believed. ``pins``: SHA-256 of the SubjectPublicKeyInfo of authorities that need
    not be CA or carry cmcCA or cmcRA. ``intermediates`` help to build the path."""

    anchors: Chain
    intermediates: Chain = ()
    pins: frozenset[bytes] = frozenset()
    legacy: frozenset[Legacy] = frozenset()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose signature and signer held, not yet compared with a request.

    ``response`` is None for a Simple PKI Response, which has no ``signer`` either. ``certificates`` are
    without the signer's.
    """

    certificates: Chain
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    response: PkiResponse | None = None
    statuses: tuple[StatusInfo, ...] = ()
    signer: x509.Certificate | None = None
    signed_at: datetime | None = None


def read(der: bytes, judge: Judge, now: Moment, *, limit: int) -> Reply:
    """An answer, if it may be believed.

    Raises RemoteProtocolError ``cmc.content-type``, ``cmc.unsigned`` and what the readers raise; TrustError
    ``cmc.digest``, ``cms.*``, ``chain.*``.
    """
    fields = cms_reading.signed_data(der, limit=limit)
    if not fields.signers:
        return _unsigned(fields)
    opened = cms.open_signed(der, limit=limit, candidates=(*judge.intermediates, *judge.anchors), sha1=True)
    if opened.digest == "sha1" and Legacy.SHA1 not in judge.legacy:
        raise TrustError("cmc.digest", _SHA1_HINT, clause="RFC 10004")
    if opened.content_type != words.PKI_RESPONSE:
        detail = f"{opened.content_type} where a PKIResponse belongs"
        raise RemoteProtocolError("cmc.content-type", detail, clause="RFC 10002 §4.2")
    _check_signer(opened, judge, now)
    response = read_response(opened.content, limit=limit)
    others = tuple(c for c in dict.fromkeys(opened.certificates) if c != opened.signer)
    statuses = _statuses(response, judge.legacy)
    return Reply(others, opened.crls, response, statuses, opened.signer, opened.signing_time)


def check(reply: Reply, transaction: int, nonce: bytes, data: bytes) -> bytes:
    """Whether a Full reply is to this request; returns the server's nonce, empty if it gave none.

    Raises TrustError ``cmc.transaction``, ``cmc.nonce``, ``cmc.data-return``; RemoteProtocolError
    ``cmc.unmatched`` (busy) for a refusal that names no request: a server that cannot read ours has no other
    way to say so, but it may as well be of yesterday.
    """
    assert reply.response is not None
    found = reply.response.control(words.TRANSACTION_ID)
    if found is None and reply.response.control(words.RECIPIENT_NONCE) is None and _fails(reply):
        said = "; ".join(status.describe() for status in reply.statuses[:3])
        detail = f"an authority refuses something, and does not say what: {said}"
        raise RemoteProtocolError("cmc.unmatched", detail, clause="RFC 10002 §6.6", busy=True)
    if found is None or read_integer(found) != transaction:
        raise TrustError("cmc.transaction", "the answer is to another transaction", clause="RFC 10002 §6.6")
    echoed = reply.response.control(words.RECIPIENT_NONCE)
    if echoed is None or read_octets(echoed, most=256) != nonce:
        detail = "the answer does not repeat the nonce of this request"
        raise TrustError("cmc.nonce", detail, clause="RFC 10002 §6.6")
    returned = reply.response.control(words.DATA_RETURN)
    if data and (returned is None or read_octets(returned) != data):
        detail = "the answer does not return the data of this request"
        raise TrustError("cmc.data-return", detail, clause="RFC 10002 §6.4")
    theirs = reply.response.control(words.SENDER_NONCE)
    return b"" if theirs is None else read_octets(theirs, most=256)


def _fails(reply: Reply) -> bool:
    return any(status.status in (words.Status.FAILED, words.Status.NO_SUPPORT) for status in reply.statuses)


def _unsigned(fields: cms_reading.SignedDataFields) -> Reply:
    if fields.content is None and fields.content_type == oids.CT_DATA:
        if not fields.certificates and not fields.crls:
            raise RemoteProtocolError("cmc.empty", "neither a certificate nor a CRL nor a signature")
        return Reply(load_all(dict.fromkeys(fields.certificates)), fields.crls)
    said = ""
    if fields.content is not None and fields.content_type == words.PKI_RESPONSE:
        statuses = _statuses(read_response(fields.content), frozenset(Legacy))
        said = "; ".join(status.describe() for status in statuses[:3])
    detail = f"nobody signed the answer, which says: {said or 'nothing'}"
    raise RemoteProtocolError("cmc.unsigned", detail, clause="RFC 10002 §3.2.1.3.4", busy=True)


def _check_signer(opened: cms.SignedContent, judge: Judge, now: Moment) -> None:
    others = [c for c in dict.fromkeys((*opened.certificates, *judge.intermediates)) if c != opened.signer]
    path = (opened.signer, *others)[: chain.MAX_CHAIN]
    pinned = hashlib.sha256(spki(opened.signer)).digest() in judge.pins
    chain.validate(path, judge.anchors, now, chain.Rule.message_authority(pinned=pinned))


def _statuses(response: PkiResponse, legacy: frozenset[Legacy]) -> tuple[StatusInfo, ...]:
    found = [read_status(c.value) for c in response.all(words.STATUS_INFO_V2)[:MOST_STATUSES]]
    if not found and Legacy.V1 in legacy:
        found = [read_status(c.value, v1=True) for c in response.all(words.STATUS_INFO)[:MOST_STATUSES]]
    if not found and response.control(words.STATUS_INFO) is not None:
        detail = f"a status of RFC 2797 alone; `legacy: [{Legacy.V1.value}]` in the configuration allows it"
        raise RemoteProtocolError("cmc.status", detail, clause="RFC 10002 §6.1")
    return tuple(found)
