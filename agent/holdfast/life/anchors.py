"""By which certificates a domain is trusted once its CA told its own (RFC 7030 §4.1, RFC 8995 §5.9.1).

The answer comes over a channel that the present anchors vouch for, and so may bring new roots (ADR 11). A
root that an old one signed (NewWithOld) is known by that; any other has the channel's word alone, and the
record says which. Old and new stand side by side until the CA has not named the old one for a while. What was
retired never comes back: an old answer must not bring an old key back to power.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.record import Anchor, Provenance, Retired
from holdfast.life.renewal import later
from holdfast.wire.authorities import is_self_signed
from holdfast.wire.certificates import signed_by
from holdfast.wire.csr import public_bytes
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, Moment

MOST_ANCHORS: Final = 32
"""The oldest go beyond this: path validation takes ``chain.MAX_ANCHORS`` and refuses every path above."""

OVERLAP: Final = timedelta(days=30)
"""How long an anchor stays after the CA stopped naming it, by a trusted clock."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What the record keeps: anchors, intermediates (DER) that only help to build paths, and what went."""

    anchors: tuple[Anchor, ...]
    intermediates: tuple[bytes, ...]
    retired: tuple[Retired, ...] = ()


def adopt(
    held: tuple[Anchor, ...],
    offered: Chain,
    serves: Callable[[tuple[Anchor, ...]], None],
    now: Moment,
    *,
    source: str = "",
    retired: tuple[Retired, ...] = (),
) -> Trust:
    """The trust after an authenticated server offered its CA certificates. *retired* went before.

    *source* names the server: one CA's silence says nothing of the root of another, so an anchor is missing
    only when everybody who had named it has stopped.

    Self-signed certificates become anchors beside those that an earlier answer gave; the others, links
    between two roots of one name included, only help to build paths. The voucher's pinned certificate was
    temporary: it goes as soon as the offered roots also reach the server that we talk to (*serves* raises
    TrustError if they do not), and stays otherwise, so that a device never locks itself out of the only
    server that it knows. The same holds for an old root.

    Raises TrustError ``anchors.link`` for a certificate that claims to be the signature of one of our roots
    over a new one, and is not.
    """
    gone = {r.sha256 for r in retired}
    roots = tuple(c for c in dict.fromkeys(offered) if is_self_signed(c) and fingerprint(_der(c)) not in gone)
    others = tuple(c for c in dict.fromkeys(offered) if not is_self_signed(c))
    intermediates = tuple(map(_der, others))
    adopted = tuple(
        replace(a, missing=None, sources=tuple(sorted({*a.sources, source})))
        for a in _adopted(held, roots, others, now)
    )
    named = {a.certificate for a in adopted}
    earlier = tuple(
        _unnamed(a, source, now)
        for a in held
        if a.provenance is not Provenance.VOUCHER and a.certificate not in named
    )
    leaving = tuple(a for a in earlier if now.trusted and a.missing and now.now >= later(a.missing, OVERLAP))
    if leaving and _reach(serves, tuple(a for a in (*adopted, *earlier) if a not in leaving)):
        earlier = tuple(a for a in earlier if a not in leaving)
    else:
        leaving = ()
    anchors = (*adopted, *earlier)[:MOST_ANCHORS]
    temporary = tuple(a for a in held if a.provenance is Provenance.VOUCHER and a.certificate not in named)
    if temporary and not (anchors and _reach(serves, anchors)):
        anchors = (*anchors, *temporary)
    return Trust(anchors, intermediates, tuple(Retired(fingerprint(a.certificate), now.now) for a in leaving))


def fingerprint(der: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def _adopted(held: tuple[Anchor, ...], roots: Chain, others: Chain, now: Moment) -> tuple[Anchor, ...]:
    """Each of *roots* as an anchor: as it was, as one that a trusted root signed, or on the word of the
    channel."""
    known = {a.certificate: a for a in held if a.provenance is not Provenance.VOUCHER}
    trusted = [x509.load_der_x509_certificate(a.certificate) for a in held]
    linked: set[x509.Certificate] = set()
    while True:  # a chain of links leads over several changes
        found = [r for r in roots if r not in trusted and _is_linked(r, others, trusted, now)]
        if not found:
            break
        linked.update(found)
        trusted += found
    return tuple(
        known[der]
        if (der := _der(root)) in known
        else Anchor(der, Provenance.ROLLOVER if root in linked else Provenance.CACERTS, now.now)
        for root in roots
    )


def _unnamed(anchor: Anchor, source: str, now: Moment) -> Anchor:
    if source not in anchor.sources or not now.trusted:
        return anchor
    left = tuple(s for s in anchor.sources if s != source)
    return replace(anchor, sources=left, missing=None if left else now.now)


def _is_linked(root: x509.Certificate, others: Chain, trusted: list[x509.Certificate], now: Moment) -> bool:
    """Whether one of *trusted* signed the key of *root* (NewWithOld). Raises TrustError ``anchors.link``."""
    linked = False
    for link in others:
        if link.subject != root.subject or public_bytes(link) != public_bytes(root):
            continue
        claimed = [old for old in trusted if old.subject == link.issuer]
        if not claimed:
            continue  # of a root that we never knew
        if not any(signed_by(link, old) for old in claimed):
            detail = f"no root of ours named {link.issuer.rfc4514_string()[:200]} signed the new one"
            raise TrustError("anchors.link", detail, clause="RFC 4210 §4.4")
        known = now.now if now.trusted else now.floor
        linked = linked or known <= link.not_valid_after_utc
    return linked


def _reach(serves: Callable[[tuple[Anchor, ...]], None], anchors: tuple[Anchor, ...]) -> bool:
    try:
        serves(anchors)
    except TrustError:
        return False
    return True


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
