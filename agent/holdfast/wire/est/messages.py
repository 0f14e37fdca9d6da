"""EST on the wire, both directions: paths, bodies and the messages built of them (RFC 7030, RFC 8951).

Strict out: base64 in lines of 64 characters ending in LF, the form that OpenSSL writes, so that decoders
which choke on one long line (libest) and those which want MIME lines both read it. Content-Transfer-Encoding
goes with every body, because peers older than RFC 8951 demand it; it is never looked at.

Lenient in: any white space, one long line, NUL octets at the end (libest), one PEM armour around the whole
(older clients send it; the DER inside is checked all the same). Refused: other characters, missing padding
(a truncated body), anything behind the padding, raw DER.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from holdfast.wire import cms
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.est.csrattrs import Style, encode_csrattrs, parse_csrattrs
from holdfast.wire.http import format_http_date, media_type, printable
from holdfast.wire.model import Chain, CsrTemplate, HttpRequest, HttpResponse

__all__ = [
    "BASE",
    "BODY_LIMIT",
    "CACERTS",
    "CSRATTRS",
    "CSRATTRS_TYPE",
    "FULLCMC",
    "OPERATIONS",
    "PKCS7",
    "PKCS10",
    "SERVERKEYGEN",
    "SIMPLEENROLL",
    "SIMPLEREENROLL",
    "Refusal",
    "certs_response",
    "csrattrs_response",
    "decode_body",
    "encode_body",
    "encode_csrattrs",
    "enroll_request",
    "fetch_request",
    "parse_csrattrs",
    "parse_path",
    "path",
    "read_certs",
    "read_csr_body",
    "read_csrattrs",
    "read_csrattrs_body",
    "read_refusal",
    "text_response",
]

BASE: Final = "/.well-known/est"
CACERTS: Final = "cacerts"
CSRATTRS: Final = "csrattrs"
SIMPLEENROLL: Final = "simpleenroll"
SIMPLEREENROLL: Final = "simplereenroll"
SERVERKEYGEN: Final = "serverkeygen"
FULLCMC: Final = "fullcmc"
OPERATIONS: Final = frozenset({CACERTS, CSRATTRS, SIMPLEENROLL, SIMPLEREENROLL, SERVERKEYGEN, FULLCMC})

PKCS10: Final = "application/pkcs10"
PKCS7: Final = "application/pkcs7-mime"
CSRATTRS_TYPE: Final = "application/csrattrs"

BODY_LIMIT: Final = 1 << 20
"""Octets of a body that are looked at, where the caller gives no limit of its own."""

_LABEL: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_ARMOUR: Final = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,40})-----(.*)-----END \1-----", re.DOTALL)
_WHITE: Final = bytes((9, 10, 11, 12, 13, 32))


def path(operation: str, label: str | None = None) -> str:
    """The target of an operation, with the CA label where there is one (RFC 7030 §3.2.2).

    Raises LocalProtocolError ``est.label`` for a label that is not one plain path segment.
    """
    if label is None:
        return f"{BASE}/{operation}"
    if not _LABEL.fullmatch(label) or label in OPERATIONS or set(label) == {"."}:
        detail = f"{printable(label)!r} cannot be a CA label"
        raise LocalProtocolError("est.label", detail, clause="RFC 7030 §3.2.2")
    return f"{BASE}/{label}/{operation}"


def parse_path(target: str) -> tuple[str, str | None] | None:
    """(operation, label or None) of an EST target, else None. A query is ignored."""
    parts = target.partition("?")[0].removeprefix(BASE + "/").split("/")
    if not target.startswith(BASE + "/") or len(parts) > 2 or parts[-1] not in OPERATIONS:
        return None
    if len(parts) == 1:
        return parts[0], None
    return (parts[1], parts[0]) if _LABEL.fullmatch(parts[0]) and parts[0] not in OPERATIONS else None


def encode_body(der: bytes) -> bytes:
    """Base64 in lines of 64 characters, each ending in LF."""
    text = binascii.b2a_base64(der, newline=False)
    return b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))


def decode_body(body: bytes, *, limit: int = BODY_LIMIT) -> bytes:
    """The DER in a body.

    Raises RemoteProtocolError ``est.body-size``, ``est.body-empty`` or ``est.body-base64``.
    """
    if len(body) > limit:
        raise RemoteProtocolError("est.body-size", f"{len(body)} octets, limit {limit}")
    text = body.rstrip(b"\x00" + _WHITE).lstrip(_WHITE)
    if text.startswith(b"-----BEGIN"):
        armour = _ARMOUR.fullmatch(text)
        text = armour[2] if armour else text
    text = text.translate(None, _WHITE)
    if not text:
        raise RemoteProtocolError("est.body-empty", "the body holds nothing", clause="RFC 8951 §3")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as e:
        what = "raw DER instead of base64" if body[:1] == b"\x30" and body[1:2] >= b"\x80" else str(e)
        raise RemoteProtocolError("est.body-base64", what, clause="RFC 8951 §3") from e


def _headers(content_type: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", content_type), ("Content-Transfer-Encoding", "base64"))


def fetch_request(operation: str, label: str | None = None) -> HttpRequest:
    """GET for ``cacerts`` or ``csrattrs``."""
    accept = CSRATTRS_TYPE if operation == CSRATTRS else PKCS7
    return HttpRequest("GET", path(operation, label), (("Accept", accept),))


def enroll_request(operation: str, csr: bytes, label: str | None = None) -> HttpRequest:
    """POST of a DER PKCS#10 to ``simpleenroll`` or ``simplereenroll``; the same bytes for the same input."""
    headers = (("Accept", PKCS7), *_headers(PKCS10))
    return HttpRequest("POST", path(operation, label), headers, encode_body(csr))


def read_csr_body(request: HttpRequest, *, limit: int = BODY_LIMIT) -> bytes:
    """The DER PKCS#10 of an enrollment request, unverified.

    Raises RemoteProtocolError ``est.content-type`` or ``est.body-*``.
    """
    _require_type(HttpResponse(200, request.headers), PKCS10)
    return decode_body(request.body, limit=limit)


def certs_response(certificates: Sequence[x509.Certificate], status: int = 200) -> HttpResponse:
    """A certs-only answer, as ``cacerts`` and enrollment give it."""
    body = encode_body(cms.certs_only(tuple(certificates)))
    return HttpResponse(status, _headers(f"{PKCS7}; smime-type=certs-only"), body)


def read_certs(resp: HttpResponse, *, limit: int = BODY_LIMIT) -> Chain:
    """The certificates of a certs-only answer, in the order of the message, none of them verified.

    Raises RemoteProtocolError ``est.content-type``, ``est.body-*`` and what
    :func:`holdfast.wire.cms.parse_certs_only` raises.
    """
    _require_type(resp, PKCS7)
    return cms.parse_certs_only(decode_body(resp.body, limit=limit), limit=limit)


def csrattrs_response(template: CsrTemplate, style: Style = "9908") -> HttpResponse:
    """An answer of ``csrattrs``; 204 if there are no wishes."""
    if template == CsrTemplate():
        return HttpResponse(204)
    return HttpResponse(200, _headers(CSRATTRS_TYPE), encode_body(encode_csrattrs(template, style)))


def read_csrattrs(resp: HttpResponse, *, limit: int = BODY_LIMIT) -> CsrTemplate:
    """The wishes in a 200 answer of ``csrattrs``; an empty body has none.

    Raises RemoteProtocolError ``est.content-type``, ``est.body-*``, ``est.csrattrs``.
    """
    der = read_csrattrs_body(resp, limit=limit)
    return parse_csrattrs(der) if der else CsrTemplate()


def read_csrattrs_body(resp: HttpResponse, *, limit: int = BODY_LIMIT) -> bytes:
    """The DER in a 200 answer of ``csrattrs``, not looked into; empty if the body is.

    Raises RemoteProtocolError ``est.content-type``, ``est.body-*``.
    """
    if not resp.body.strip(b"\x00" + _WHITE):
        return b""
    _require_type(resp, CSRATTRS_TYPE)
    return decode_body(resp.body, limit=limit)


def text_response(
    status: int, text: str = "", *, retry_after: timedelta | datetime | None = None
) -> HttpResponse:
    """A plain-text answer: an error, or 202 with Retry-After in seconds or as a date."""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain; charset=utf-8"),)
    if isinstance(retry_after, timedelta):
        headers += (("Retry-After", str(int(retry_after.total_seconds()))),)
    elif retry_after is not None:
        headers += (("Retry-After", format_http_date(retry_after)),)
    return HttpResponse(status, headers, text.encode())


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server said with a status that is no success: one bounded line, fit for a log."""

    status: int
    text: str

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.text else f"HTTP {self.status}"


def read_refusal(resp: HttpResponse) -> Refusal:
    """The human text of an error answer (RFC 7030 §4.2.3); only text/plain is quoted."""
    kind = media_type(resp)[0]
    shown = resp.body[:2000].decode("utf-8", "replace") if kind in ("text/plain", "") else ""
    return Refusal(resp.status, printable(shown))


def _require_type(message: HttpResponse, wanted: str) -> None:
    found = media_type(message)[0]
    if found != wanted:
        detail = f"{printable(found) or 'no Content-Type'}, expected {wanted}"
        raise RemoteProtocolError("est.content-type", detail, clause="RFC 7030 §3.2.4")
