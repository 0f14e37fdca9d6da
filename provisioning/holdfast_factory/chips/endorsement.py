"""First look at a chip: what is in it, and its endorsement key with the certificates around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast.wire.tpm.public import RSA, USER_WITH_AUTH
from holdfast_factory.chips import commands, nv
from holdfast_factory.chips.commands import ENDORSEMENT, Answer, Command
from holdfast_factory.chips.dialogue import Dialogue, transients
from holdfast_factory.chips.ek_kinds import CHAIN, EkKind, present

_NV_FIRST, _PERSISTENT_FIRST = 0x01C00000, 0x81000000
_NV_BUFFER_MAX: Final = 0x12C
_MOST_LISTED: Final = 64
_MOST_ISSUERS: Final = 8
_LEAST_BUFFER, _MOST_BUFFER = 64, 2048


@dataclass(frozen=True, slots=True)
class Look:
    """What a chip held when it was looked at: NV indices and persistent handles, and how many octets of NV
    it moves at once."""

    indices: frozenset[int]
    persistent: frozenset[int]
    buffer: int


@dataclass(frozen=True, slots=True)
class Ek:
    """The endorsement key. ``handle``: where it is loaded; ``transient``: and has to be flushed.
    ``certificates``: DER, its own first, then what NV holds of its issuers."""

    kind: EkKind
    area: bytes = field(repr=False)
    handle: int = 0
    transient: bool = False
    certificates: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def by_policy(self) -> bool:
        """It is used in a policy session, not by its empty password."""
        return not int.from_bytes(self.area[4:8], "big") & USER_WITH_AUTH

    @property
    def digest(self) -> int:
        """TPM_ALG_ID of its Name's digest."""
        return int.from_bytes(self.area[2:4], "big")

    @property
    def is_rsa(self) -> bool:
        return int.from_bytes(self.area[:2], "big") == RSA


def look() -> Dialogue[Look]:
    """One round trip. What somebody who was cut off left loaded is flushed: it takes the few places."""
    loaded, indices, persistent, limits = yield (
        transients(),
        commands.handles(_NV_FIRST, _MOST_LISTED),
        commands.handles(_PERSISTENT_FIRST, _MOST_LISTED),
        commands.properties(_NV_BUFFER_MAX, 1),
    )
    if strangers := commands.listed(loaded):
        yield tuple(map(commands.flush, strangers))
    buffer = commands.valued(limits).get(_NV_BUFFER_MAX, _LEAST_BUFFER)
    return Look(
        frozenset(commands.listed(indices)),
        frozenset(commands.listed(persistent)),
        max(_LEAST_BUFFER, min(buffer, _MOST_BUFFER)),
    )


def read_ek(seen: Look) -> Dialogue[Ek]:
    """The endorsement key, loaded, and its certificates: two round trips.

    The key is read where it is persistent, and made where it is not; it is the maker's seed that makes
    it, so it is the same each time.
    """
    kind = present(seen.indices)
    chain = tuple(sorted(i for i in seen.indices if i in CHAIN))[:_MOST_ISSUERS]
    own = (kind.certificate,) if kind.certificate in seen.indices else ()
    extra = tuple(i for i in (kind.template_index, kind.nonce_index) if i in seen.indices)
    wanted = (*own, *chain, *(i for i in extra if i is not None))
    publics = tuple(map(commands.nv_read_public, wanted))
    persistent = kind.handle in seen.persistent
    made: tuple[Command, ...] = ()
    if persistent:
        made = (commands.read_public(kind.handle),)
    elif not extra:
        made = (commands.create_primary(ENDORSEMENT, kind.area()),)
    *spaces, last = yield (*publics, *made) if made else (*publics, transients())
    handle, area = _made(last, kind, persistent=persistent) if made else (0, b"")
    found = [nv.space(index, answer) for index, answer in zip(wanted, spaces, strict=True)]
    batches = [nv.reading(each, seen.buffer) for each in found]
    flat = tuple(command for batch in batches for command in batch)
    received = iter((yield flat) if flat else ())
    contents = {
        each.index: nv.content(tuple(next(received) for _ in batch))
        for each, batch in zip(found, batches, strict=True)
    }
    if not made:
        template = contents.get(kind.template_index, b"")
        nonce = contents.get(kind.nonce_index, b"") if kind.nonce_index is not None else b""
        (answer,) = yield (commands.create_primary(ENDORSEMENT, kind.area(template, nonce)),)
        handle, area = _made(answer, kind, persistent=False)
    issuers = split(b"".join(contents[index] for index in chain))
    leaf = nv.without_padding(contents.get(kind.certificate, b""))
    return Ek(kind, area, handle, not persistent, (*((leaf,) if leaf else ()), *issuers))


def split(ders: bytes) -> tuple[bytes, ...]:
    """The certificates of concatenated DER. They are cut by their lengths, not judged."""
    found: list[bytes] = []
    while ders[:2] == b"\x30\x82" and len(found) < _MOST_ISSUERS:
        length = 4 + int.from_bytes(ders[2:4], "big")
        found.append(ders[:length])
        ders = ders[length:]
    return tuple(found)


def public_area(answer: Answer) -> bytes:
    """TPMT_PUBLIC from the answer to ReadPublic or CreatePrimary."""
    return answer.read().sized()


def _made(answer: Answer, kind: EkKind, *, persistent: bool) -> tuple[int, bytes]:
    return kind.handle if persistent else answer.handle, public_area(answer)
