"""By which certificates a domain is trusted once its CA told its own (RFC 7030 §4.1, RFC 8995 §5.9.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.record import Anchor, Provenance
from holdfast.wire.authorities import is_self_signed
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, Moment

MOST_ANCHORS: Final = 32
"""The oldest go beyond this: path validation takes ``chain.MAX_ANCHORS`` and refuses every path above."""


def adopt(
    held: tuple[Anchor, ...],
    offered: Chain,
    serves: Callable[[tuple[Anchor, ...]], None],
    now: Moment,
) -> tuple[tuple[Anchor, ...], tuple[bytes, ...]]:
    """Anchors and intermediates (DER) after an authenticated server offered its CA certificates.

    Self-signed certificates become anchors beside those that an earlier answer gave; the others, links
    between two roots of one name included, only help to build paths. The voucher's pinned certificate was
    temporary: it goes as soon as the offered roots also reach the server that we talk to (*serves* raises
    TrustError if they do not), and stays otherwise, so that a device never locks itself out of the only
    server that it knows.
    """
    known = {a.certificate: a for a in held if a.provenance is Provenance.CACERTS}
    roots = tuple(c for c in offered if is_self_signed(c))
    adopted = tuple(
        known.get(der, Anchor(der, Provenance.CACERTS, now.now))
        for der in dict.fromkeys(c.public_bytes(Encoding.DER) for c in roots)
    )
    ders = {a.certificate for a in adopted}
    earlier = tuple(a for a in held if a.provenance is Provenance.CACERTS and a.certificate not in ders)
    anchors = (*adopted, *earlier)[:MOST_ANCHORS]
    temporary = tuple(a for a in held if a.provenance is Provenance.VOUCHER and a.certificate not in ders)
    intermediates = tuple(c.public_bytes(Encoding.DER) for c in offered if not is_self_signed(c))
    if not temporary:
        return anchors, intermediates
    if not anchors:
        return temporary, intermediates
    try:
        serves(anchors)
    except TrustError:
        return (*anchors, *temporary), intermediates
    return anchors, intermediates
