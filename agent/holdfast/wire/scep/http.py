"""SCEP over HTTP (RFC 8894 §4.1): operations as GET with a query, messages as POST where the server can."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import media_type, printable, retry_after
from holdfast.wire.model import HttpRequest, HttpResponse, Moment
from holdfast.wire.scep.settings import DEFAULT_PATH

MESSAGE_TYPE: Final = "application/x-pki-message"
CA_CERT: Final = "application/x-x509-ca-cert"
CA_RA_CERT: Final = "application/x-x509-ca-ra-cert"
NEXT_CA_CERT: Final = "application/x-x509-next-ca-cert"
UNTYPED: Final = frozenset({"", "application/octet-stream", "text/plain"})
"""What servers that know no better call any answer."""

MOST_IN_A_TARGET: Final = 16_384
_UNSUPPORTED: Final = frozenset({404, 405, 501})
_BUSY: Final = frozenset({408, 425, 429})
_CLAUSE: Final = "RFC 8894 §4.1"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is: the path of its URL, and which of its CAs is meant (``message`` of GetCACert)."""

    path: str = DEFAULT_PATH
    ca: str = ""

    def __post_init__(self) -> None:
        usable = self.path.startswith("/") and self.path.isascii() and self.path.isprintable()
        if not usable or set(self.path) & set(" #?"):
            raise LocalProtocolError("scep.path", f"{self.path!r} is not the path of a URL")

    def query(self, operation: str) -> HttpRequest:
        """GetCACaps, GetCACert or GetNextCACert."""
        message = f"&message={quote(self.ca, safe='')}" if self.ca else ""
        return HttpRequest("GET", f"{self.path}?operation={operation}{message}", (("Accept", "*/*"),))

    def post(self, message: bytes) -> HttpRequest:
        headers = (("Content-Type", MESSAGE_TYPE), ("Accept", "*/*"))
        return HttpRequest("POST", f"{self.path}?operation=PKIOperation", headers, message)

    def get(self, message: bytes) -> HttpRequest:
        """The message in the query: base64, with ``+``, ``/`` and ``=`` escaped so that none is misread.

        Raises LocalProtocolError ``scep.get-size`` for one that no server would take there.
        """
        text = quote(base64.b64encode(message).decode(), safe="")
        if len(text) > MOST_IN_A_TARGET:
            detail = f"{len(text)} characters do not fit a URL, and the server does not announce POST"
            raise LocalProtocolError("scep.get-size", detail, clause=_CLAUSE)
        target = f"{self.path}?operation=PKIOperation&message={text}"
        return HttpRequest("GET", target, (("Accept", "*/*"),))


def message_of_query(text: str) -> bytes:
    """The message in a query value as a server sees it: percent-decoding done, a plus perhaps become a space,
    or in the alphabet for URLs, as micromdm's client writes it.

    Raises RemoteProtocolError ``scep.base64``.
    """
    squeezed = "".join(text.replace(" ", "+").split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(squeezed + "=" * (-len(squeezed) % 4), validate=True)
    except ValueError as error:
        raise RemoteProtocolError("scep.base64", "the message is no base64", clause=_CLAUSE) from error


def checked(resp: HttpResponse, operation: str, types: frozenset[str], now: Moment, limit: int) -> bytes:
    """The body of a good answer. *types* are the media types that it may have, beside UNTYPED.

    Raises RemoteProtocolError ``scep.unsupported``, ``scep.unavailable`` (busy), ``scep.refused``,
    ``scep.media-type``, ``scep.body-size``, ``scep.empty``.
    """
    if resp.status != 200:
        raise _unusable(resp, operation, now)
    if len(resp.body) > limit:
        raise RemoteProtocolError("scep.body-size", f"{operation}: {len(resp.body)} octets, limit {limit}")
    essence, _ = media_type(resp)
    if essence not in types | UNTYPED:
        detail = f"{operation}: {printable(essence, 100)} where {', '.join(sorted(types))} belongs"
        raise RemoteProtocolError("scep.media-type", detail, clause="RFC 8894 §4")
    if not resp.body:
        raise RemoteProtocolError("scep.empty", f"{operation}: an answer without a body", clause=_CLAUSE)
    return resp.body


def _unusable(resp: HttpResponse, operation: str, now: Moment) -> RemoteProtocolError:
    said = printable(resp.body[:600].decode("utf-8", "replace"))
    detail = f"{operation}: HTTP {resp.status} {said}".rstrip()
    if resp.status in _UNSUPPORTED:
        return RemoteProtocolError("scep.unsupported", detail, clause=_CLAUSE, unsupported=True)
    if resp.status >= 500 or resp.status in _BUSY:
        wait = retry_after(resp, now)
        longest = timedelta(days=4)
        return RemoteProtocolError(
            "scep.unavailable",
            detail,
            clause=_CLAUSE,
            busy=True,
            retry_after=None if wait is None else min(wait, longest),
        )
    return RemoteProtocolError("scep.refused", detail, clause=_CLAUSE)
