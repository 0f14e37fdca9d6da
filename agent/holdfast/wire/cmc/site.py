"""CMC over HTTP (RFC 10003 §6) and over EST's /fullcmc (RFC 7030 §4.3), where bodies are base64.

An error status need not be the end: the body may be a CMC response all the same, signed, and it says more.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import media_type, printable, retry_after
from holdfast.wire.model import HttpRequest, HttpResponse, Moment

PKCS7: Final = "application/pkcs7-mime"
PKCS10: Final = "application/pkcs10"
FULL_REQUEST: Final = f"{PKCS7}; smime-type=CMC-request"
FULL_RESPONSE: Final = f"{PKCS7}; smime-type=CMC-response"
CERTS_ONLY: Final = f"{PKCS7}; smime-type=certs-only"
TYPES: Final = frozenset({PKCS7, "application/x-pkcs7-mime", "application/octet-stream", ""})
"""What servers call an answer; what it is its content decides."""

DEFAULT_PATH: Final = "/.well-known/est/fullcmc"
_EST: Final = "/.well-known/est/"
_UNSUPPORTED: Final = frozenset({404, 405, 415, 501})
_BUSY: Final = frozenset({202, 408, 425, 429})
_CLAUSE: Final = "RFC 10003 §6"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is. Raises LocalProtocolError ``cmc.path`` when made."""

    path: str = DEFAULT_PATH

    def __post_init__(self) -> None:
        usable = self.path.startswith("/") and self.path.isascii() and self.path.isprintable()
        if not usable or set(self.path) & set(" #"):
            raise LocalProtocolError("cmc.path", f"{self.path!r} is not the path of a URL")

    @property
    def est(self) -> bool:
        """Whether it is an EST server's: bodies are base64 then (RFC 8951 §3)."""
        return self.path.startswith(_EST)

    def full(self, message: bytes) -> HttpRequest:
        """A Full PKI Request."""
        return self._post(message, FULL_REQUEST)

    def simple(self, csr: bytes) -> HttpRequest:
        """A Simple PKI Request. Raises LocalProtocolError ``cmc.simple``: EST has an operation for that."""
        if self.est:
            detail = "a request without identity is EST's own simpleenroll; /fullcmc takes full requests"
            raise LocalProtocolError("cmc.simple", detail, clause="RFC 7030 §4.3")
        return self._post(csr, PKCS10)

    def _post(self, body: bytes, kind: str) -> HttpRequest:
        headers: tuple[tuple[str, str], ...] = (("Content-Type", kind), ("Accept", PKCS7))
        if self.est:
            headers = (*headers, ("Content-Transfer-Encoding", "base64"))
            body = base64.encodebytes(body)
        return HttpRequest("POST", self.path, headers, body)

    def read(self, resp: HttpResponse, now: Moment, limit: int) -> bytes:
        """The DER that may be a CMC response, whatever the status.

        Raises RemoteProtocolError ``cmc.unsupported``, ``cmc.unavailable`` (busy), ``cmc.refused``,
        ``cmc.media-type``, ``cmc.too-large``, ``cmc.empty``, ``cmc.base64``.
        """
        essence, _ = media_type(resp)
        if resp.status != 200 and (essence not in TYPES - {""} or not resp.body):
            raise unusable(resp, now)
        if len(resp.body) > limit:
            raise RemoteProtocolError("cmc.too-large", f"{len(resp.body)} octets, at most {limit} are read")
        if essence not in TYPES:
            detail = f"{printable(essence, 100)} where {PKCS7} belongs"
            raise RemoteProtocolError("cmc.media-type", detail, clause=_CLAUSE)
        if not resp.body:
            raise RemoteProtocolError("cmc.empty", "an answer without a body", clause=_CLAUSE)
        if not self.est or resp.body[0] == 0x30:  # a server that forgot the base64 of EST
            return resp.body
        try:
            return binascii.a2b_base64(b"".join(resp.body.split()), strict_mode=True)
        except binascii.Error as error:
            raise RemoteProtocolError("cmc.base64", str(error), clause="RFC 8951 §3") from error


def unusable(resp: HttpResponse, now: Moment) -> RemoteProtocolError:
    """What an HTTP status alone says."""
    essence, _ = media_type(resp)
    said = printable(resp.body[:600].decode("utf-8", "replace")) if essence in ("text/plain", "") else ""
    detail = f"HTTP {resp.status} {said}".rstrip()
    if resp.status in _UNSUPPORTED:
        return RemoteProtocolError("cmc.unsupported", detail, clause=_CLAUSE, unsupported=True)
    if resp.status >= 500 or resp.status in _BUSY:
        wait = retry_after(resp, now)
        return RemoteProtocolError(
            "cmc.unavailable",
            detail,
            clause=_CLAUSE,
            busy=True,
            retry_after=None if wait is None else min(wait, timedelta(days=4)),
        )
    return RemoteProtocolError("cmc.refused", detail, clause=_CLAUSE)
