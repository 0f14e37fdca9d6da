"""CMP over HTTP: where requests go, and what a response holds (RFC 9811).

A CMP message counts whatever the status, and no state of the protocol is derived from HTTP (RFC 9811 §3.1).
Only where there is no CMP message does the status say why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from holdfast.wire.cmp import oids
from holdfast.wire.cmp.message import MESSAGE_LIMIT, Body, Message, parse
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import media_type, printable, retry_after
from holdfast.wire.model import HttpRequest, HttpResponse, Moment

MEDIA_TYPE: Final = "application/pkixcmp"
WELL_KNOWN: Final = "/.well-known/cmp"
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@%-]+/)*[A-Za-z0-9._~!$&'()*+,;=:@%-]*")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_UNSUPPORTED: Final = frozenset({404, 405, 415, 501})

OPERATIONS: Final[Mapping[Body, str]] = MappingProxyType(
    {
        Body.IR: "initialization",
        Body.CR: "certification",
        Body.KUR: "keyupdate",
        Body.P10CR: "pkcs10",
        Body.RR: "revocation",
        Body.NESTED: "nested",
    }
)
SUPPORT: Final[Mapping[str, str]] = MappingProxyType(
    {
        oids.CA_CERTS: "getcacerts",
        oids.ROOT_CA_CERT: "getrootupdate",
        oids.CERT_REQ_TEMPLATE: "getcertreqtemplate",
        oids.CRL_STATUS_LIST: "getcrls",
    }
)
"""Path segments by operation (RFC 9811 §5.1, RFC 9483 §6.1)."""


def check_path(path: str) -> str:
    """*path* if it is a usable absolute path. Raises LocalProtocolError ``cmp.path``."""
    if not _PATH.fullmatch(path) or len(path) > 512 or "/../" in f"{path}/":
        raise LocalProtocolError("cmp.path", f"{printable(path)} is no absolute path", clause="RFC 9811 §3.4")
    return path


def profile_path(profile: str) -> str:
    """The well-known path of a named profile. Raises LocalProtocolError ``cmp.path``."""
    if not _SEGMENT.fullmatch(profile) or profile in {".", ".."}:
        detail = f"{printable(profile)} is no path segment"
        raise LocalProtocolError("cmp.path", detail, clause="RFC 9811 §3.4")
    return f"{WELL_KNOWN}/p/{profile}"


def post(path: str, message: bytes) -> HttpRequest:
    """The request that carries *message*.

    OpenSSL's server answers in HTTP/1.0 and forgets a transaction with its connection, unless it is asked to
    keep that.
    """
    headers = (("Content-Type", MEDIA_TYPE), ("Connection", "keep-alive"))
    return HttpRequest("POST", path, headers, message)


def answer(message: bytes, status: int = 200) -> HttpResponse:
    """The response that carries *message*."""
    return HttpResponse(status, (("Content-Type", MEDIA_TYPE),), message)


def read_answer(resp: HttpResponse, now: Moment, *, limit: int = MESSAGE_LIMIT) -> Message:
    """The CMP message of a response.

    Raises RemoteProtocolError: ``cmp.unsupported`` (no CMP at this place), ``cmp.refused`` (another 4xx
    without a message), ``cmp.redirect``, ``cmp.unavailable``, ``cmp.content-type``, and what :func:`parse`
    raises.
    """
    kind = media_type(resp)[0]
    if kind == MEDIA_TYPE and resp.body:
        return parse(resp.body, limit=limit)
    detail = f"HTTP {resp.status} without a CMP message"
    if kind.startswith("text/") and resp.body:
        detail += f": {printable(resp.body[:2000].decode('utf-8', 'replace'))}"
    clause = "RFC 9811 §3.1"
    if 200 <= resp.status < 300:
        detail = f"{printable(kind) or 'no type'} with {len(resp.body)} octets where {MEDIA_TYPE} is expected"
        raise RemoteProtocolError("cmp.content-type", detail, clause="RFC 9811 §3.3")
    if 300 <= resp.status < 400:
        where = printable(resp.header("Location") or "nowhere")
        raise RemoteProtocolError("cmp.redirect", f"the server points to {where}", clause=clause)
    if resp.status in _UNSUPPORTED:
        raise RemoteProtocolError("cmp.unsupported", detail, clause=clause, unsupported=True)
    if 400 <= resp.status < 500 and resp.status not in {408, 425, 429}:
        raise RemoteProtocolError("cmp.refused", detail, clause=clause)
    wait = retry_after(resp, now)
    raise RemoteProtocolError("cmp.unavailable", detail, clause=clause, busy=True, retry_after=wait)
