"""PKIMessage: header, body, protection and certificates (RFC 9810 §5.1).

A message is read into records; the octets that its protection covers are kept as they were sent. All tags of
this module are EXPLICIT. The contents of a body are read in :mod:`holdfast.wire.cmp.bodies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final

from holdfast.wire import der
from holdfast.wire.der import Cursor
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.identified import Algorithm, Info, read_algorithm, read_infos

MESSAGE_LIMIT: Final = 256 * 1024
MAX_EXTRA_CERTS: Final = 32
MAX_IDENTIFIER: Final = 128
CLAUSE: Final = "RFC 9810 §5.1"


class Body(IntEnum):
    """The bodies by their tags (RFC 9810 §5.1.2)."""

    IR = 0
    IP = 1
    CR = 2
    CP = 3
    P10CR = 4
    POPDECC = 5
    POPDECR = 6
    KUR = 7
    KUP = 8
    KRR = 9
    KRP = 10
    RR = 11
    RP = 12
    CCR = 13
    CCP = 14
    CKUANN = 15
    CANN = 16
    RANN = 17
    CRLANN = 18
    PKICONF = 19
    NESTED = 20
    GENM = 21
    GENP = 22
    ERROR = 23
    CERT_CONF = 24
    POLL_REQ = 25
    POLL_REP = 26

    @property
    def label(self) -> str:
        """As the RFCs write it: ``ir``, ``pollRep``."""
        first, *rest = self.name.lower().split("_")
        return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True, slots=True)
class Header:
    """PKIHeader. ``sender`` and ``recipient`` are encoded GeneralNames; absent octet strings are empty."""

    sender: bytes
    recipient: bytes
    pvno: int = 2
    message_time: datetime | None = None
    protection: Algorithm | None = None
    sender_kid: bytes = b""
    recip_kid: bytes = b""
    transaction: bytes = b""
    sender_nonce: bytes = b""
    recip_nonce: bytes = b""
    free_text: tuple[str, ...] = ()
    general_info: tuple[Info, ...] = ()

    def info(self, oid: str) -> Info | None:
        """The first entry of generalInfo called *oid*."""
        return next((i for i in self.general_info if i.oid == oid), None)

    def encode(self) -> bytes:
        parts = [der.integer(self.pvno), self.sender, self.recipient]
        if self.message_time is not None:
            parts.append(der.explicit(0, der.generalized_time(self.message_time)))
        if self.protection is not None:
            parts.append(der.explicit(1, self.protection.encode()))
        identifiers = (
            self.sender_kid,
            self.recip_kid,
            self.transaction,
            self.sender_nonce,
            self.recip_nonce,
        )
        parts += [der.explicit(n, der.octets(value)) for n, value in enumerate(identifiers, 2) if value]
        if self.free_text:
            parts.append(der.explicit(7, der.sequence(*map(der.text, self.free_text))))
        if self.general_info:
            parts.append(der.explicit(8, der.sequence(*(i.encode() for i in self.general_info))))
        return der.sequence(*parts)


@dataclass(frozen=True, slots=True)
class Message:
    """One PKIMessage. ``content`` is what stands inside the body's tag.

    ``protected`` is the DER of ``SEQUENCE {header, body}``, made of the octets as they were sent;
    ``protection`` is None if the message has none.
    """

    header: Header
    kind: Body
    content: bytes = field(repr=False)
    protection: bytes | None = field(default=None, repr=False)
    extra_certs: tuple[bytes, ...] = field(default=(), repr=False)
    protected: bytes = field(default=b"", repr=False)


def reading(what: str) -> AbstractContextManager[None]:
    """Name what could not be read. Raises RemoteProtocolError ``cmp.syntax``."""
    return der.reading(what, "cmp.syntax", CLAUSE)


def parse(data: bytes, *, limit: int = MESSAGE_LIMIT) -> Message:
    """Read one message. Raises RemoteProtocolError ``cmp.too-large`` and ``cmp.syntax``."""
    if len(data) > limit:
        detail = f"{len(data)} octets, at most {limit} are read"
        raise RemoteProtocolError("cmp.too-large", detail, clause=CLAUSE)
    with reading("PKIMessage"):
        return _message(der.read_one(data))


def _message(cursor: Cursor) -> Message:
    header, body = cursor.any(), cursor.any()
    kind = Body(body[0] - 0xA0)
    content = Cursor(body).inside(body[0])
    value = content.any()
    content.close()
    protection: bytes | None = None
    extra: tuple[bytes, ...] = ()
    if found := cursor.maybe(0xA0):
        protection = found.bits()
        found.close()
    if found := cursor.maybe(0xA1):
        extra = _certificates(found)
    cursor.close()
    protected = der.sequence(header, body)
    return Message(_header(der.read_one(header)), kind, value, protection, extra, protected)


def _certificates(outer: Cursor) -> tuple[bytes, ...]:
    certificates = tuple(each.any() for each in outer.inside().each())
    outer.close()
    if len(certificates) > MAX_EXTRA_CERTS:
        raise ValueError(f"{len(certificates)} extra certificates, at most {MAX_EXTRA_CERTS} are read")
    return certificates


def _header(cursor: Cursor) -> Header:
    pvno, sender, recipient = cursor.integer(), cursor.any(), cursor.any()
    message_time = protection = None
    if found := cursor.maybe(0xA0):
        message_time = found.generalized_time()
        found.close()
    if found := cursor.maybe(0xA1):
        protection = read_algorithm(found)
        found.close()
    sender_kid, recip_kid, transaction, sender_nonce, recip_nonce = (
        _identifier(cursor, number) for number in range(2, 7)
    )
    free_text: tuple[str, ...] = ()
    general_info: tuple[Info, ...] = ()
    if found := cursor.maybe(0xA7):
        free_text = read_texts(found)
        found.close()
    if found := cursor.maybe(0xA8):
        general_info = read_infos(found)
        found.close()
    cursor.close()
    return Header(
        sender,
        recipient,
        pvno,
        message_time,
        protection,
        sender_kid,
        recip_kid,
        transaction,
        sender_nonce,
        recip_nonce,
        free_text,
        general_info,
    )


def _identifier(cursor: Cursor, number: int) -> bytes:
    found = cursor.maybe(0xA0 | number)
    if found is None:
        return b""
    value = found.octets()
    found.close()
    if len(value) > MAX_IDENTIFIER:
        raise ValueError(f"header field [{number}] of {len(value)} octets")
    return value


def read_texts(cursor: Cursor) -> tuple[str, ...]:
    """The next value as PKIFreeText. Raises ValueError."""
    return tuple(each.text() for each in cursor.inside().each())


def encode(
    header: Header,
    kind: Body,
    content: bytes,
    *,
    protect: Callable[[bytes], bytes] | None = None,
    extra_certs: Sequence[bytes] = (),
) -> bytes:
    """The DER of a message. *protect* makes the protection from the octets that it covers."""
    head, body = header.encode(), der.explicit(kind, content)
    parts = [head, body]
    if protect is not None:
        parts.append(der.explicit(0, der.bits(protect(der.sequence(head, body)))))
    if extra_certs:
        parts.append(der.explicit(1, der.sequence(*extra_certs)))
    return der.sequence(*parts)
