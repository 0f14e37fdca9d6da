"""PKIData and PKIResponse (RFC 10002 §3.2.1, §4.2.1): records to DER and back. All tags are IMPLICIT.

The octets of requests and contents stay as they came: an identity proof covers them so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from holdfast.wire import der
from holdfast.wire.cmc.vocabulary import MOST_BODY_PART
from holdfast.wire.der import Cursor
from holdfast.wire.errors import RemoteProtocolError

MESSAGE_LIMIT: Final = 256 * 1024
MOST_PARTS: Final = 256
CLAUSE: Final = "RFC 10002 §3.2"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Control:
    """TaggedAttribute. ``values`` are encoded; every control of the standard has exactly one."""

    number: int
    oid: str
    values: tuple[bytes, ...] = field(repr=False)

    @property
    def value(self) -> bytes:
        """The one value. Raises RemoteProtocolError ``cmc.control``."""
        if len(self.values) != 1:
            detail = f"control {self.oid} has {len(self.values)} values"
            raise RemoteProtocolError("cmc.control", detail, clause="RFC 10002 §3.2.1.1")
        return self.values[0]

    def encode(self) -> bytes:
        values = der.tlv(der.SET, *sorted(self.values))
        return der.sequence(der.integer(self.number), der.oid(self.oid), values)


@dataclass(frozen=True, slots=True)
class Pkcs10:
    """TaggedRequest ``tcr``: a DER PKCS#10."""

    number: int
    csr: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.explicit(0, der.integer(self.number), self.csr)


@dataclass(frozen=True, slots=True)
class Crmf:
    """TaggedRequest ``crm``: a DER CertReqMsg, whose certReqId is its number."""

    number: int
    message: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.explicit(1, Cursor(self.message).take(der.SEQUENCE))


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """TaggedRequest ``orm``: of a kind that the standard leaves open."""

    number: int
    oid: str
    value: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.explicit(2, der.integer(self.number), der.oid(self.oid), self.value)


Request = Pkcs10 | Crmf | OtherRequest


@dataclass(frozen=True, slots=True)
class Content:
    """TaggedContentInfo: a DER CMS object inside the message."""

    number: int
    cms: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.sequence(der.integer(self.number), self.cms)


@dataclass(frozen=True, slots=True)
class Other:
    """OtherMsg; ``value`` encoded."""

    number: int
    oid: str
    value: bytes = field(repr=False)

    def encode(self) -> bytes:
        return der.sequence(der.integer(self.number), der.oid(self.oid), self.value)


@dataclass(frozen=True, slots=True)
class PkiData:
    """What a client asks. ``covered`` is reqSequence as it was sent: what an identity proof covers."""

    controls: tuple[Control, ...] = ()
    requests: tuple[Request, ...] = ()
    contents: tuple[Content, ...] = ()
    others: tuple[Other, ...] = ()
    covered: bytes = field(default=b"", repr=False, compare=False)

    def control(self, oid: str) -> Control | None:
        """The control called *oid*. Raises RemoteProtocolError ``cmc.control`` if there are several."""
        return _single(self.controls, oid)

    def encode(self) -> bytes:
        parts = (self.controls, self.requests, self.contents, self.others)
        return der.sequence(*(sequence(each) for each in parts))


@dataclass(frozen=True, slots=True)
class PkiResponse:
    """What a server answers."""

    controls: tuple[Control, ...] = ()
    contents: tuple[Content, ...] = ()
    others: tuple[Other, ...] = ()

    def control(self, oid: str) -> Control | None:
        """The control called *oid*. Raises RemoteProtocolError ``cmc.control`` if there are several."""
        return _single(self.controls, oid)

    def all(self, oid: str) -> tuple[Control, ...]:
        return tuple(c for c in self.controls if c.oid == oid)

    def encode(self) -> bytes:
        return der.sequence(*(sequence(each) for each in (self.controls, self.contents, self.others)))


def sequence(parts: Iterable[Control | Request | Content | Other]) -> bytes:
    """A SEQUENCE of body parts."""
    return der.sequence(*(part.encode() for part in parts))


def reading(what: str) -> AbstractContextManager[None]:
    """Name what could not be read. Raises RemoteProtocolError ``cmc.syntax``."""
    return der.reading(what, "cmc.syntax", CLAUSE)


def read_data(data: bytes, *, limit: int = MESSAGE_LIMIT) -> PkiData:
    """The PKIData in *data*. Raises RemoteProtocolError ``cmc.too-large``, ``cmc.syntax``,
    ``cmc.body-part`` (a number twice, or none)."""
    _check_size(data, limit)
    with reading("PKIData"):
        cursor = der.read_one(data)
        controls = _each(cursor.inside(), _control)
        covered = cursor.any()
        requests = _each(der.read_one(covered), _request)
        contents, others = _each(cursor.inside(), _content), _each(cursor.inside(), _other)
        cursor.close()
    _check_numbers((*controls, *requests, *contents, *others))
    return PkiData(controls, requests, contents, others, covered)


def read_response(data: bytes, *, limit: int = MESSAGE_LIMIT) -> PkiResponse:
    """The PKIResponse in *data*. Raises as :func:`read_data` does."""
    _check_size(data, limit)
    with reading("PKIResponse"):
        cursor = der.read_one(data)
        controls = _each(cursor.inside(), _control)
        contents, others = _each(cursor.inside(), _content), _each(cursor.inside(), _other)
        cursor.close()
    _check_numbers((*controls, *contents, *others))
    return PkiResponse(controls, contents, others)


def read_request(cursor: Cursor) -> Request:
    """The next value as TaggedRequest. Raises ValueError."""
    tag = cursor.peek()
    if tag == 0xA1:
        message = der.sequence(cursor.take(0xA1))
        return Crmf(number_of(der.read_one(der.read_one(message).any())), message)
    inner = cursor.inside(tag if tag == 0xA2 else 0xA0)
    number = number_of(inner)
    if tag == 0xA2:
        other = OtherRequest(number, inner.oid(), inner.any())
        inner.close()
        return other
    request = Pkcs10(number, inner.any())
    inner.close()
    return request


def number_of(cursor: Cursor) -> int:
    """The next value as BodyPartID. Raises ValueError."""
    number = cursor.integer()
    if not 0 <= number <= MOST_BODY_PART:
        raise ValueError(f"{number} is no bodyPartID")
    return number


def _control(cursor: Cursor) -> Control:
    inner = cursor.inside()
    number, oid = number_of(inner), inner.oid()
    values = tuple(each.any() for each in inner.inside(der.SET).each())
    inner.close()
    return Control(number, oid, values)


def _request(cursor: Cursor) -> Request:
    return read_request(cursor)


def _content(cursor: Cursor) -> Content:
    inner = cursor.inside()
    content = Content(number_of(inner), inner.any())
    inner.close()
    return content


def _other(cursor: Cursor) -> Other:
    inner = cursor.inside()
    other = Other(number_of(inner), inner.oid(), inner.any())
    inner.close()
    return other


def _each(cursor: Cursor, read: Callable[[Cursor], T]) -> tuple[T, ...]:
    found = tuple(read(each) for each in cursor.each())
    if len(found) > MOST_PARTS:
        raise ValueError(f"{len(found)} body parts, at most {MOST_PARTS} are read")
    return found


def _single(controls: tuple[Control, ...], oid: str) -> Control | None:
    found = [c for c in controls if c.oid == oid]
    if len(found) > 1:
        raise RemoteProtocolError("cmc.control", f"control {oid} {len(found)} times", clause=CLAUSE)
    return found[0] if found else None


def _check_size(data: bytes, limit: int) -> None:
    if len(data) > limit:
        detail = f"{len(data)} octets, at most {limit} are read"
        raise RemoteProtocolError("cmc.too-large", detail, clause=CLAUSE)


def _check_numbers(parts: tuple[Control | Request | Content | Other, ...]) -> None:
    numbers = [part.number for part in parts]
    if len(set(numbers)) != len(numbers) or 0 in numbers:
        detail = f"body parts {sorted(numbers)[:20]} are not all different, or one is 0"
        raise RemoteProtocolError("cmc.body-part", detail, clause="RFC 10002 §3.2.2")
