"""What a server sees of a request, and how it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from cryptography import x509

from holdfast.wire.model import Chain, HttpRequest, HttpResponse

MAX_BODY = 256 * 1024  # no honest request comes near it


@dataclass(frozen=True, slots=True)
class Peer:
    """The TLS side of one connection, as the server knows it.

    ``chain``: the client's certificates, leaf first, empty without a client certificate; not verified by
    whoever made this record. ``server_chain``: what this connection was shown by us. ``tls_unique``:
    TLS 1.2 only.
    """

    chain: Chain
    server_chain: Chain
    tls_unique: bytes | None = field(default=None, repr=False)

    @property
    def certificate(self) -> x509.Certificate | None:
        return self.chain[0] if self.chain else None


class Refused(Exception):
    """A request is answered with *status* and a text for a person; nothing was done for it, or not yet."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers = headers

    def response(self) -> HttpResponse:
        body = (self.text + "\n").encode()
        return HttpResponse(self.status, (("Content-Type", "text/plain; charset=utf-8"), *self.headers), body)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the bytes of an answer travel, where that differs from the ordinary way.

    ``drop``: the connection ends instead of an answer. ``keep``: only that many body bytes are sent, under
    the full Content-Length. ``pad``: that many bytes follow the body, honestly announced, or in chunks that
    announce nothing if ``chunked``. ``delay``: seconds of silence before the status line.
    """

    drop: bool = False
    keep: int | None = None
    pad: int = 0
    chunked: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    response: HttpResponse
    delivery: Delivery = Delivery()
    faults: tuple[str, ...] = ()


def ok(body: bytes, content_type: str, *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(200, (("Content-Type", content_type), *headers), body)


def ok_json(value: object) -> HttpResponse:
    return ok(json.dumps(value).encode(), "application/json")


def header(request: HttpRequest, name: str) -> str | None:
    """First value of the request header *name*, or None."""
    return next((v for n, v in request.headers if n.lower() == name.lower()), None)


def path_of(request: HttpRequest) -> str:
    return request.target.partition("?")[0]


def require_method(request: HttpRequest, method: str) -> None:
    if request.method != method:
        raise Refused(405, f"only {method} is served here", ("Allow", method))


def require_type(request: HttpRequest, media_type: str) -> None:
    """Parameters are ignored, as is Content-Transfer-Encoding (RFC 8951 §2)."""
    given = (header(request, "Content-Type") or "").partition(";")[0].strip().lower()
    if given != media_type:
        raise Refused(415, f"expected Content-Type {media_type}, got {given or 'none'}")


def require_size(request: HttpRequest) -> None:
    if len(request.body) > MAX_BODY:
        raise Refused(413, f"the body is larger than {MAX_BODY} bytes")
