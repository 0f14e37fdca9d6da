"""How the CMP server behaves, and what it remembers of each transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from cryptography import x509

from holdfast.wire.cmp.message import Body
from holdfast.wire.model import CsrTemplate

from .ca import Credential
from .cmp_replies import Reply


@dataclass(frozen=True, slots=True)
class CmpPolicy:
    """How the CMP server behaves, apart from faults.

    ``secrets``: reference to shared secret. ``authority``: who signs the answers, the registrar (an RA by
    its extended key usage) or the issuing CA. ``implicit_confirm``: granted to whoever asks. ``polls``: how
    often an answer to a certificate request is put off, ``other_polls`` every other answer, by
    ``check_after`` seconds; ``by_error``: an error says so, also about a certificate. ``versions`` are the
    pvno that are known. ``profiles``: the certProfile names that exist, None for any. ``template`` answers
    certReqTemplate. ``p10_request_id``: the certReqId of answers to p10cr, 0 for peers of old. ``window``:
    how far a messageTime may be from now. ``kem``: certificates of KEM keys that clients
    may protect with; ``kem_signed``: the ciphertext comes in a signed message.
    """

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    authority: Literal["ra", "ca"] = "ra"
    implicit_confirm: bool = False
    polls: int = 0
    other_polls: int = 0
    by_error: bool = False
    check_after: int = 1
    versions: frozenset[int] = frozenset({2, 3})
    profiles: frozenset[str] | None = None
    template: CsrTemplate | None = None
    p10_request_id: int = -1
    window: timedelta = timedelta(hours=1)
    kem: tuple[x509.Certificate, ...] = ()
    kem_signed: bool = False


@dataclass(slots=True)
class Conversation:
    """One transaction: who speaks, the nonce that began it, those that we sent, and what is to be confirmed.

    ``ready`` is the answer that is put off for so many more questions about ``request_id``. ``shared`` is the
    secret that was encapsulated for the speaker's KEM key.
    """

    speaker: str
    kind: Body
    first_nonce: bytes = b""
    nonces: list[bytes] = field(default_factory=list)
    ready: tuple[Reply, int] | None = None
    request_id: int = -1
    unconfirmed: x509.Certificate | None = None
    confirmed: bool = False
    rejected: bool = False
    shared: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class CmpDesk:
    """The transactions, newest last. ``device``: an end entity of the domain that a fault lets answer."""

    conversations: dict[bytes, Conversation] = field(default_factory=dict)
    device: Credential | None = field(default=None, repr=False)
