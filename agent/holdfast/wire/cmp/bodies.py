"""What stands inside the bodies of CMP, both ways: status, certificates, confirmation, polling, revocation.

Each reader takes the content of a body and raises RemoteProtocolError ``cmp.syntax``; each record encodes
itself. Tags are EXPLICIT (RFC 9810 §5.2, §5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from holdfast.wire import der
from holdfast.wire.cmp.message import Message, parse, read_texts, reading
from holdfast.wire.der import Cursor
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.http import printable
from holdfast.wire.identified import Algorithm, Info, read_algorithm, read_infos

WHOLE_MESSAGE: Final = -1
"""The certReqId that stands for the message and not for one certificate (RFC 9810 §5.3.22)."""


class Status(IntEnum):
    """PKIStatus (RFC 9810 §5.2.3)."""

    ACCEPTED = 0
    GRANTED_WITH_MODS = 1
    REJECTION = 2
    WAITING = 3
    REVOCATION_WARNING = 4
    REVOCATION_NOTIFICATION = 5
    KEY_UPDATE_WARNING = 6


GRANTED: Final = frozenset(
    {
        Status.ACCEPTED,
        Status.GRANTED_WITH_MODS,
        Status.REVOCATION_WARNING,
        Status.REVOCATION_NOTIFICATION,
        Status.KEY_UPDATE_WARNING,
    }
)


class Failure(IntEnum):
    """PKIFailureInfo, by bit number (RFC 9810 §5.2.3)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4
    BAD_DATA_FORMAT = 5
    WRONG_AUTHORITY = 6
    INCORRECT_DATA = 7
    MISSING_TIME_STAMP = 8
    BAD_POP = 9
    CERT_REVOKED = 10
    CERT_CONFIRMED = 11
    WRONG_INTEGRITY = 12
    BAD_RECIPIENT_NONCE = 13
    TIME_NOT_AVAILABLE = 14
    UNACCEPTED_POLICY = 15
    UNACCEPTED_EXTENSION = 16
    ADD_INFO_NOT_AVAILABLE = 17
    BAD_SENDER_NONCE = 18
    BAD_CERT_TEMPLATE = 19
    SIGNER_NOT_TRUSTED = 20
    TRANSACTION_ID_IN_USE = 21
    UNSUPPORTED_VERSION = 22
    NOT_AUTHORIZED = 23
    SYSTEM_UNAVAIL = 24
    SYSTEM_FAILURE = 25
    DUPLICATE_CERT_REQ = 26

    @property
    def label(self) -> str:
        """As the RFC writes it: ``badPOP`` becomes ``badPop``."""
        first, *rest = self.name.lower().split("_")
        return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True, slots=True)
class StatusInfo:
    """PKIStatusInfo. ``failures`` are bit numbers, known or not."""

    status: int
    texts: tuple[str, ...] = ()
    failures: frozenset[int] = frozenset()

    @property
    def granted(self) -> bool:
        return self.status in GRANTED

    def has(self, *failures: Failure) -> bool:
        """Whether one of *failures* is given as the reason."""
        return bool(self.failures & set(failures))

    def describe(self) -> str:
        """For a person, bounded; the texts are the peer's."""
        known = {s.value: s.name.lower().replace("_", "-") for s in Status}
        names = {f.value: f.label for f in Failure}
        parts = [known.get(self.status, f"status {self.status}")]
        if self.failures:
            parts.append(", ".join(names.get(f, f"bit {f}") for f in sorted(self.failures)))
        if self.texts:
            parts.append(printable(" / ".join(self.texts)))
        return ": ".join(parts)

    def encode(self) -> bytes:
        parts = [der.integer(self.status)]
        if self.texts:
            parts.append(der.sequence(*map(der.text, self.texts)))
        if self.failures:
            parts.append(der.named_bits(*self.failures))
        return der.sequence(*parts)


def _status_info(cursor: Cursor) -> StatusInfo:
    inner = cursor.inside()
    status = inner.integer()
    texts = read_texts(inner) if inner.peek() == der.SEQUENCE else ()
    failures = inner.named_bits() if inner.peek() == der.BIT_STRING else frozenset()
    inner.close()
    return StatusInfo(status, texts, failures)


# --- ip, cp, kup ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CertResponse:
    """One answer to one request. ``encrypted``: an encrypted certificate came; ``private_key``: a key."""

    request_id: int
    status: StatusInfo
    certificate: bytes | None = field(default=None, repr=False)
    encrypted: bool = False
    private_key: bool = False

    def encode(self) -> bytes:
        parts = [der.integer(self.request_id), self.status.encode()]
        if self.certificate is not None:
            pair = [der.explicit(0, self.certificate)]
            if self.private_key:
                pair.append(der.explicit(0, der.explicit(0, der.sequence())))
            parts.append(der.sequence(*pair))
        return der.sequence(*parts)


@dataclass(frozen=True, slots=True)
class CertReply:
    """CertRepMessage."""

    responses: tuple[CertResponse, ...]
    ca_pubs: tuple[bytes, ...] = field(default=(), repr=False)

    def encode(self) -> bytes:
        parts = [der.explicit(1, der.sequence(*self.ca_pubs))] if self.ca_pubs else []
        return der.sequence(*parts, der.sequence(*(r.encode() for r in self.responses)))


def read_cert_reply(content: bytes) -> CertReply:
    """The content of ip, cp or kup."""
    with reading("CertRepMessage"):
        cursor = der.read_one(content)
        ca_pubs: tuple[bytes, ...] = ()
        if found := cursor.maybe(0xA1):
            ca_pubs = tuple(each.any() for each in found.inside().each())
            found.close()
        responses = tuple(_cert_response(each) for each in cursor.inside().each())
        cursor.close()
        return CertReply(responses, ca_pubs)


def _cert_response(cursor: Cursor) -> CertResponse:
    inner = cursor.inside()
    request_id, status = inner.integer(), _status_info(inner)
    certificate, encrypted, private_key = None, False, False
    if pair := inner.maybe(der.SEQUENCE):
        match pair.peek():
            case 0xA0:
                outer = pair.inside(0xA0)
                certificate = outer.any()
                outer.close()
            case 0xA1:
                encrypted = True
                pair.any()
            case tag:
                raise ValueError(f"a certificate with the tag {tag:#04x}")
        private_key = pair.maybe(0xA0) is not None
        pair.rest()  # publicationInfo says nothing to an end entity
    if inner.more:
        inner.octets()
    inner.close()
    return CertResponse(request_id, status, certificate, encrypted, private_key)


# --- certConf, pkiconf ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CertStatus:
    """What the client says about one certificate. ``status`` None means accepted."""

    cert_hash: bytes = field(repr=False)
    request_id: int
    status: StatusInfo | None = None
    hash_algorithm: Algorithm | None = None

    def encode(self) -> bytes:
        parts = [der.octets(self.cert_hash), der.integer(self.request_id)]
        if self.status is not None:
            parts.append(self.status.encode())
        if self.hash_algorithm is not None:
            parts.append(der.explicit(0, self.hash_algorithm.encode()))
        return der.sequence(*parts)


def cert_confirm(*statuses: CertStatus) -> bytes:
    """The content of certConf."""
    return der.sequence(*(s.encode() for s in statuses))


def read_cert_confirm(content: bytes) -> tuple[CertStatus, ...]:
    """The content of certConf."""
    with reading("CertConfirmContent"):
        return tuple(_cert_status(each) for each in der.read_one(content).each())


def _cert_status(cursor: Cursor) -> CertStatus:
    inner = cursor.inside()
    digest, request_id = inner.octets(), inner.integer()
    status = _status_info(inner) if inner.peek() == der.SEQUENCE else None
    algorithm = None
    if found := inner.maybe(0xA0):
        algorithm = read_algorithm(found)
        found.close()
    inner.close()
    return CertStatus(digest, request_id, status, algorithm)


def read_confirmed(content: bytes) -> None:
    """The content of pkiconf, which is NULL."""
    with reading("PKIConfirmContent"):
        cursor = Cursor(content)
        if cursor.take(der.NULL):
            raise ValueError("a NULL with content")
        cursor.close()


# --- polling --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PollReply:
    """``check_after`` in seconds, as the server wrote it."""

    request_id: int
    check_after: int
    reason: tuple[str, ...] = ()

    def encode(self) -> bytes:
        parts = [der.integer(self.request_id), der.integer(self.check_after)]
        if self.reason:
            parts.append(der.sequence(*map(der.text, self.reason)))
        return der.sequence(*parts)


def poll_request(request_id: int) -> bytes:
    """The content of pollReq."""
    return der.sequence(der.sequence(der.integer(request_id)))


def read_poll_request(content: bytes) -> tuple[int, ...]:
    """The content of pollReq: request identifiers."""
    with reading("PollReqContent"):
        found = []
        for each in der.read_one(content).each():
            inner = each.inside()
            found.append(inner.integer())
            inner.close()
        return tuple(found)


def poll_reply(*replies: PollReply) -> bytes:
    """The content of pollRep."""
    return der.sequence(*(r.encode() for r in replies))


def read_poll_reply(content: bytes) -> tuple[PollReply, ...]:
    """The content of pollRep."""
    with reading("PollRepContent"):
        found = []
        for each in der.read_one(content).each():
            inner = each.inside()
            request_id, wait = inner.integer(), inner.integer()
            reason = read_texts(inner) if inner.more else ()
            inner.close()
            found.append(PollReply(request_id, wait, reason))
        return tuple(found)


# --- error ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ErrorContent:
    """ErrorMsgContent."""

    status: StatusInfo
    code: int | None = None
    details: tuple[str, ...] = ()

    def describe(self) -> str:
        """For a person, bounded; the texts are the peer's."""
        parts = [self.status.describe()]
        if self.code is not None:
            parts.append(f"error code {self.code}")
        if self.details:
            parts.append(printable(" / ".join(self.details)))
        return "; ".join(parts)

    def encode(self) -> bytes:
        parts = [self.status.encode()]
        if self.code is not None:
            parts.append(der.integer(self.code))
        if self.details:
            parts.append(der.sequence(*map(der.text, self.details)))
        return der.sequence(*parts)


def read_error(content: bytes) -> ErrorContent:
    """The content of error."""
    with reading("ErrorMsgContent"):
        cursor = der.read_one(content)
        status = _status_info(cursor)
        code = cursor.integer() if cursor.peek() == der.INTEGER else None
        details = read_texts(cursor) if cursor.more else ()
        cursor.close()
        return ErrorContent(status, code, details)


# --- rr, rp ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RevocationReply:
    """RevRepContent; the certificate identifiers and CRLs that may follow are not needed."""

    statuses: tuple[StatusInfo, ...]

    def encode(self) -> bytes:
        return der.sequence(der.sequence(*(s.encode() for s in self.statuses)))


def read_revocation_reply(content: bytes) -> RevocationReply:
    """The content of rp."""
    with reading("RevRepContent"):
        cursor = der.read_one(content)
        statuses = tuple(_status_info(each) for each in cursor.inside().each())
        for tag in (0xA0, 0xA1):
            cursor.maybe(tag)
        cursor.close()
        return RevocationReply(statuses)


# --- genm, genp, nested ---------------------------------------------------------------------------


def general(*infos: Info) -> bytes:
    """The content of genm and genp."""
    return der.sequence(*(i.encode() for i in infos))


def read_general(content: bytes) -> tuple[Info, ...]:
    """The content of genm and genp."""
    with reading("GenMsgContent"):
        cursor = Cursor(content)
        infos = read_infos(cursor)
        cursor.close()
        return infos


MAX_NESTED: Final = 8


def nested(messages: Sequence[bytes]) -> bytes:
    """The content of nested."""
    return der.sequence(*messages)


def read_nested(content: bytes) -> tuple[Message, ...]:
    """The messages inside nested; they are read, not opened further."""
    with reading("NestedMessageContent"):
        found = tuple(each.any() for each in der.read_one(content).each())
    if not 0 < len(found) <= MAX_NESTED:
        detail = f"{len(found)} nested messages, from 1 to {MAX_NESTED} are read"
        raise RemoteProtocolError("cmp.syntax", detail, clause="RFC 9810 §5.1.3.4")
    return tuple(parse(message) for message in found)
