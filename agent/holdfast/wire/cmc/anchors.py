"""Anchors that a CA publishes (RFC 10002 §6.15). Whoever could publish them could take the device over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.authorities import is_ca
from holdfast.wire.cmc import proofs
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.answer import Reply
from holdfast.wire.cmc.controls import read_published
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment

FRESH: Final = timedelta(days=1)
_CLAUSE: Final = "RFC 10002 §6.15"


@dataclass(frozen=True, slots=True)
class Published:
    """A set of anchors, with its place in the sequence of sets."""

    sequence: int
    anchors: Chain


def published(reply: Reply, now: Moment, *, after: int = -1, sha1: bool = False) -> Published | None:
    """The anchors that *reply*, believed and checked before, publishes; None if it publishes none.

    *after*: the place of the set before. Raises TrustError ``cmc.anchors-signer`` (an RA is not enough),
    ``cmc.anchors-order``, ``cmc.anchors-time``; RemoteProtocolError ``cmc.anchors``.
    """
    control = None if reply.response is None else reply.response.control(words.TRUSTED_ANCHORS)
    if control is None:
        return None
    found = read_published(control.value)
    assert reply.signer is not None
    if not is_ca(reply.signer):
        detail = "a CA itself signs what shall be trusted; a registration authority did"
        raise TrustError("cmc.anchors-signer", detail, clause=_CLAUSE)
    if found.sequence <= after:
        detail = f"set {found.sequence} after set {after}"
        raise TrustError("cmc.anchors-order", detail, clause=_CLAUSE)
    if reply.signed_at is None or (now.trusted and abs(now.now - reply.signed_at) > FRESH):
        detail = f"signed at {reply.signed_at or 'no time'}, which is not about now"
        raise TrustError("cmc.anchors-time", detail, clause=_CLAUSE)
    brought = {
        proofs.hash_of(found.algorithm, c.public_bytes(Encoding.DER), sha1=sha1): c
        for c in (*reply.certificates, reply.signer)
    }
    anchors = tuple(brought[digest] for digest in found.hashes if digest in brought)
    if len(anchors) != len(found.hashes) or not all(map(is_ca, anchors)):
        detail = "not every published anchor is a CA certificate that came along"
        raise RemoteProtocolError("cmc.anchors", detail, clause=_CLAUSE)
    return Published(found.sequence, tuple(dict.fromkeys(anchors)))
