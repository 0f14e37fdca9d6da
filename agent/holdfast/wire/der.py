"""DER by cursor: values are read in order, and the octets that a signature covers stay as they came.

CMP and CMC are full of choices inside tags, and a protection covers octets as they were sent. So this reads
tags one after the other, hands out slices of the original, and never builds a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from holdfast.wire.errors import RemoteProtocolError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
UTF8: Final = 0x0C
SEQUENCE: Final = 0x30
SET: Final = 0x31
GENERALIZED_TIME: Final = 0x18

MAX_MEMBERS: Final = 1024
_MAX_OID: Final = 64


def tlv(tag: int, *contents: bytes) -> bytes:
    """One value around what is already encoded."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*contents: bytes) -> bytes:
    return tlv(SEQUENCE, *contents)


def explicit(number: int, *contents: bytes) -> bytes:
    """``[number] EXPLICIT``; also what an IMPLICIT tag on a constructed value looks like."""
    return tlv(0xA0 | number, *contents)


def implicit(number: int, content: bytes) -> bytes:
    """``[number] IMPLICIT`` on a primitive value."""
    return tlv(0x80 | number, content)


def integer(value: int) -> bytes:
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes) -> bytes:
    return tlv(OCTET_STRING, value)


def bits(value: bytes) -> bytes:
    """A BIT STRING of whole octets."""
    return tlv(BIT_STRING, b"\0", value)


def text(value: str) -> bytes:
    return tlv(UTF8, value.encode())


def null() -> bytes:
    return tlv(NULL)


def generalized_time(moment: datetime) -> bytes:
    return tlv(GENERALIZED_TIME, moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


def oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return tlv(OID, bytes(content))


def named_bits(*numbers: int) -> bytes:
    """A BIT STRING in which *numbers* are set, without trailing zeros (X.690 §11.2.2)."""
    if not numbers:
        return tlv(BIT_STRING, b"\0")
    size = max(numbers) // 8 + 1
    value = sum(1 << (size * 8 - 1 - number) for number in set(numbers))
    unused = (value & -value).bit_length() - 1
    return tlv(BIT_STRING, bytes((unused,)), value.to_bytes(size, "big"))


@contextmanager
def reading(what: str, code: str, clause: str) -> Iterator[None]:
    """Name what could not be read. Raises RemoteProtocolError *code* where ValueError was raised inside."""
    try:
        yield
    except ValueError as error:  # UnicodeDecodeError is one
        raise RemoteProtocolError(code, f"{what}: {error}"[:300], clause=clause) from error


class Cursor:
    """Reads the values inside *data* one after the other. Every method raises ValueError at a surprise."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = start
        self._end = len(data) if end is None else end

    @property
    def more(self) -> bool:
        return self._at < self._end

    def peek(self) -> int:
        """The next tag octet; -1 at the end."""
        return self._data[self._at] if self._at < self._end else -1

    def _bounds(self) -> tuple[int, int, int]:
        """Tag, and where the content of the next value starts and ends."""
        data, at, end = self._data, self._at, self._end
        if at + 2 > end:
            raise ValueError("truncated")
        tag, size = data[at], data[at + 1]
        if tag & 0x1F == 0x1F:
            raise ValueError("a tag above 30")
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 0 < count <= 4 or at + count > end:
                raise ValueError("an impossible length")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > end:
            raise ValueError("truncated")
        return tag, at, at + size

    def _content(self, tag: int) -> tuple[int, int]:
        found, start, end = self._bounds()
        if found != tag:
            raise ValueError(f"tag {found:#04x} where {tag:#04x} is expected")
        self._at = end
        return start, end

    def take(self, tag: int) -> bytes:
        """The content of the next value, which must have *tag*."""
        start, end = self._content(tag)
        return self._data[start:end]

    def inside(self, tag: int = SEQUENCE) -> Cursor:
        """A cursor over the content of the next value, which must have *tag*."""
        start, end = self._content(tag)
        return Cursor(self._data, start, end)

    def maybe(self, tag: int) -> Cursor | None:
        """As :meth:`inside` if the next value has *tag*, else None and nothing was read."""
        return self.inside(tag) if self.peek() == tag else None

    def any(self) -> bytes:
        """The next value, whatever it is, with its tag."""
        _, _, end = self._bounds()
        start, self._at = self._at, end
        return self._data[start:end]

    def rest(self) -> bytes:
        """Everything that is left, as it is."""
        start, self._at = self._at, self._end
        return self._data[start : self._end]

    def close(self) -> None:
        """Nothing may follow."""
        if self._at != self._end:
            raise ValueError(f"{self._end - self._at} octets too many")

    def each(self) -> Iterator[Cursor]:
        """This cursor again for every value that is left. Whoever loops reads one value in each turn."""
        for _ in range(MAX_MEMBERS):
            if not self.more:
                return
            before = self._at
            yield self
            if self._at == before:
                raise ValueError("a value that nobody read")
        if self.more:
            raise ValueError(f"more than {MAX_MEMBERS} values")

    def integer(self) -> int:
        content = self.take(INTEGER)
        if not 0 < len(content) <= 64:
            raise ValueError("an impossible INTEGER")
        return int.from_bytes(content, "big", signed=True)

    def octets(self) -> bytes:
        return self.take(OCTET_STRING)

    def bits(self) -> bytes:
        """The octets of a BIT STRING that is made of whole ones."""
        content = self.take(BIT_STRING)
        if content[:1] != b"\0":
            raise ValueError("a BIT STRING that is not made of whole octets")
        return content[1:]

    def named_bits(self) -> frozenset[int]:
        """The numbers of the bits that are set."""
        content = self.take(BIT_STRING)
        if not content or content[0] > 7 or len(content) > 17:
            raise ValueError("an impossible BIT STRING")
        found = (
            i * 8 + bit for i, octet in enumerate(content[1:]) for bit in range(8) if octet << bit & 0x80
        )
        return frozenset(found)

    def oid(self) -> str:
        content = self.take(OID)
        if not 0 < len(content) <= _MAX_OID or content[-1] & 0x80:
            raise ValueError("an impossible OBJECT IDENTIFIER")
        arcs, arc = [], 0
        for octet in content:
            arc = arc << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(arc)
                arc = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - first * 40, *arcs[1:])))

    def text(self) -> str:
        return self.take(UTF8).decode()

    def generalized_time(self) -> datetime:
        """Seconds are kept, fractions dropped; only UTC is allowed (RFC 5280 §4.1.2.5.2)."""
        content = self.take(GENERALIZED_TIME).decode("ascii")
        whole = content.removesuffix("Z").partition(".")[0]
        if not content.endswith("Z") or not whole.isdigit() or len(whole) != 14:
            raise ValueError("a GeneralizedTime that is not in UTC")
        return datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def read_one(data: bytes) -> Cursor:
    """A cursor over the content of *data*, which must be exactly one SEQUENCE."""
    outer = Cursor(data)
    inner = outer.inside()
    outer.close()
    return inner
