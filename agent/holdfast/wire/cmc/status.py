"""What became of a request: CMCStatusInfoV2 and its forerunner (RFC 10002 §6.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from holdfast.wire import der
from holdfast.wire.cmc.messages import number_of, reading
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.der import Cursor
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.http import printable

MOST_REFERENCES: Final = 256
MOST_TOKEN: Final = 4096
_CLAUSE: Final = "RFC 10002 §6.1.1"


@dataclass(frozen=True, slots=True)
class PendInfo:
    """What to ask again with, and not before when."""

    token: bytes = field(repr=False)
    time: datetime

    def encode(self) -> bytes:
        return der.sequence(der.octets(self.token), der.generalized_time(self.time))


@dataclass(frozen=True, slots=True)
class StatusInfo:
    """One status about ``parts``: a number, or a path of numbers through nested messages.

    ``fail`` is a CMCFailInfo, perhaps a private one of 1000 to 1999; ``extended`` the OID of one that is not
    of the standard, ``extended_value`` what came with it.
    """

    status: Status
    parts: tuple[tuple[int, ...], ...]
    text: str = ""
    fail: int | None = None
    pend: PendInfo | None = None
    extended: str = ""
    extended_value: bytes = field(default=b"", repr=False)

    @property
    def word(self) -> str:
        """The reason in one word, as the standard spells it where it has one."""
        if self.extended:
            return "extended"
        if self.fail is None:
            first, *rest = self.status.name.lower().split("_")
            return first + "".join(map(str.capitalize, rest))
        return FailInfo(self.fail).word if self.fail in set(FailInfo) else f"failInfo-{self.fail}"

    def describe(self) -> str:
        """For a person, bounded; the text is the peer's."""
        extended = f" ({self.extended})" if self.extended else ""
        return f"{self.word}{extended}: {printable(self.text) or 'the server gave no text'}"

    def about(self, number: int) -> bool:
        """Whether it concerns the body part *number*, or the whole message that has it."""
        return any(path[0] in (number, 0) for path in self.parts)

    def encode(self) -> bytes:
        """As CMCStatusInfoV2."""
        references = [
            der.integer(path[0]) if len(path) == 1 else der.sequence(*map(der.integer, path))
            for path in self.parts
        ]
        return self._encode(references)

    def encode_v1(self) -> bytes:
        """As CMCStatusInfo (RFC 2797): without paths and extended reasons."""
        return self._encode([der.integer(path[-1]) for path in self.parts])

    def _encode(self, references: list[bytes]) -> bytes:
        parts = [der.integer(self.status), der.sequence(*references)]
        if self.text:
            parts.append(der.text(self.text))
        if self.fail is not None:
            parts.append(der.integer(self.fail))
        elif self.pend is not None:
            parts.append(self.pend.encode())
        elif self.extended:
            parts.append(der.explicit(1, der.oid(self.extended), self.extended_value))
        return der.sequence(*parts)


def read_status(value: bytes, *, v1: bool = False) -> StatusInfo:
    """A status control's value; *v1*: of the old control.

    Raises RemoteProtocolError ``cmc.syntax``, and ``cmc.status`` for one that contradicts itself.
    """
    with reading("CMCStatusInfo" if v1 else "CMCStatusInfoV2"):
        cursor = der.read_one(value)
        status = Status(cursor.integer())
        parts = tuple(_reference(each, v1=v1) for each in cursor.inside().each())
        if not 1 <= len(parts) <= MOST_REFERENCES:
            raise ValueError(f"a status about {len(parts)} body parts")
        text = cursor.text() if cursor.peek() == der.UTF8 else ""
        fail, pend, extended, extra = None, None, "", b""
        if cursor.peek() == der.INTEGER:
            fail = cursor.integer()
        elif cursor.peek() == der.SEQUENCE:
            pend = _pending(cursor.inside())
        elif (found := None if v1 else cursor.maybe(0xA1)) is not None:
            extended, extra = found.oid(), found.rest()
        cursor.close()
    info = StatusInfo(status, parts, text, fail, pend, extended, extra)
    _check(info)
    return info


def _check(info: StatusInfo) -> None:
    waits = info.status in (Status.PENDING, Status.PARTIAL)
    if info.pend is not None and not waits:
        detail = f"{info.status.name} with a token to ask again with"
        raise RemoteProtocolError("cmc.status", detail, clause=_CLAUSE)
    refuses = info.status in (Status.FAILED, Status.NO_SUPPORT, Status.POP_REQUIRED)
    if (info.fail is not None or info.extended) and not refuses:
        detail = f"{info.status.name} with a reason for failure"
        raise RemoteProtocolError("cmc.status", detail, clause=_CLAUSE)


def _reference(cursor: Cursor, *, v1: bool) -> tuple[int, ...]:
    if v1 or cursor.peek() == der.INTEGER:
        return (number_of(cursor),)
    path = tuple(number_of(each) for each in cursor.inside().each())
    if not 1 <= len(path) <= 16:
        raise ValueError(f"a path of {len(path)} body parts")
    return path


def _pending(cursor: Cursor) -> PendInfo:
    pend = PendInfo(cursor.octets(), cursor.generalized_time())
    cursor.close()
    if not 1 <= len(pend.token) <= MOST_TOKEN:
        raise ValueError(f"a token of {len(pend.token)} octets")
    return pend
