"""What an issuer says of a certificate, and how long that is to be believed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from holdfast.wire.errors import TrustError
from holdfast.wire.model import Moment

SKEW: Final = timedelta(minutes=5)
"""How far the issuer's clock may run ahead of ours."""

OLDEST: Final = timedelta(days=7)
"""A statement that names no end is believed for so long."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A verified statement: ``revoked`` since ``at`` for ``reason`` (a word of RFC 5280, or ""), or good.

    ``until`` is when the issuer promises newer news; None if it does not.
    """

    revoked: bool
    at: datetime | None = None
    reason: str = ""
    until: datetime | None = None


def check_fresh(begins: datetime, ends: datetime | None, now: Moment, prefix: str, clause: str) -> None:
    """Whether a statement made at *begins* and good until *ends* counts at *now*.

    With a trusted clock both ends count; else only an end before the floor does. Raises TrustError
    ``<prefix>.not-yet`` and ``<prefix>.stale``.
    """
    if now.trusted and begins > now.now + SKEW:
        raise TrustError(f"{prefix}.not-yet", f"made at {begins}, which is still to come", clause=clause)
    known = now.now if now.trusted else now.floor
    end = ends if ends is not None else begins + OLDEST
    if ends is not None and ends < begins:
        raise TrustError(f"{prefix}.stale", f"ends at {ends}, before it begins at {begins}", clause=clause)
    if known > end + SKEW:
        raise TrustError(f"{prefix}.stale", f"made at {begins}, good until {end}", clause=clause)
