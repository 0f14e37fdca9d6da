"""HTTP/1.1 for one connection, without the connection: bytes out, bytes in, one bounded response at a time.

h11 knows the grammar and the framing. What stands here is what a device adds when the peer may be hostile:
every size has a bound, a cut-off body is never a body, nothing arrives that was not asked for, and no header
of ours can be split into two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError
from holdfast.wire.model import HttpRequest, HttpResponse

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])")
_TARGET = re.compile(r"/[\x21-\x22\x24-\x7e]*")  # origin-form: no space, no control, no fragment
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"})


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds of one response: bytes and count of its header lines, body bytes, interim (1xx) responses."""

    header_bytes: int = 16 * 1024
    header_count: int = 100
    body_bytes: int = 1024 * 1024
    interim: int = 8

    @property
    def wire_bytes(self) -> int:
        """All bytes of one response together: chunk framing may not cost more than the body it frames."""
        return 2 * self.body_bytes + (self.interim + 2) * self.header_bytes


class Http1Client:
    """The client's end of one HTTP/1.1 connection to *authority* (``host[:port]``).

    Call :meth:`request`, send what it returns, then :meth:`receive` what arrives until it returns a response.
    """

    def __init__(self, authority: str, limits: MessageLimits, user_agent: str) -> None:
        self._authority = authority
        self._limits = limits
        self._user_agent = user_agent
        self._h11 = self._grammar()
        self._answer: h11.Response | None = None
        self._body = bytearray()
        self._interim = 0
        self._received = 0
        self._ended = False

    def _grammar(self) -> h11.Connection:
        return h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.header_bytes)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection (RFC 9112 §9.3)."""
        return not self._ended and self._h11.our_state is h11.IDLE and self._h11.their_state is h11.IDLE

    def request(self, request: HttpRequest) -> bytes:
        """The bytes of *request*. Raises LocalProtocolError for what cannot be sent as one plain request."""
        if not self.reusable:
            raise LocalProtocolError("http.busy", "the connection is not ready for another request")
        _check_request(request)
        headers = [("Host", self._authority)]
        named = {name.lower() for name, _ in request.headers}
        if "user-agent" not in named:
            headers.append(("User-Agent", self._user_agent))
        if "accept-encoding" not in named:
            headers.append(("Accept-Encoding", "identity"))
        headers += request.headers
        if request.body or request.method in {"POST", "PUT", "PATCH"}:
            headers.append(("Content-Length", str(len(request.body))))
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        self._answer, self._received, self._interim = None, 0, 0
        self._body.clear()
        try:
            head = self._h11.send(h11.Request(method=request.method, target=request.target, headers=encoded))
            body = self._h11.send(h11.Data(data=request.body)) if request.body else b""
            end = self._h11.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            # Its text quotes header values, which may be credentials.
            raise LocalProtocolError("http.bad-request", "not one plain HTTP/1.1 request") from None
        return (head or b"") + (body or b"") + (end or b"")

    def receive(self, data: bytes) -> HttpResponse | None:
        """Take what the peer sent (``b""`` at its end) and return the response once it is complete.

        Raises RemoteProtocolError (``http.malformed``, ``http.too-large``, ``http.unsolicited``,
        ``http.encoding``) and TransportError (``transport.closed``, ``transport.truncated``).
        """
        self._received += len(data)
        self._ended = not data
        if self._received > self._limits.wire_bytes:
            raise _too_large(f"more than {self._limits.wire_bytes} bytes for one response")
        try:
            self._h11.receive_data(data)
            return self._advance()
        except h11.RemoteProtocolError as error:
            if data:
                raise self._malformed(error) from error
            raise self.cut() from error

    def cut(self) -> TransportError:
        """What it means that the connection broke now."""
        if self._received:
            return TransportError(
                "transport.truncated", "the connection ended inside a response", clause="RFC 9112 §8"
            )
        return TransportError("transport.closed", "the peer closed the connection without an answer")

    def _advance(self) -> HttpResponse | None:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None
            if isinstance(event, h11.InformationalResponse):
                self._check_head(event)
                self._interim += 1
                if self._interim > self._limits.interim:
                    raise _too_large(f"more than {self._limits.interim} interim responses")
            elif isinstance(event, h11.Response):
                self._check_head(event)
                self._check_framing(event)
                self._answer = event
            elif isinstance(event, h11.Data):
                if len(self._body) + len(event.data) > self._limits.body_bytes:
                    raise _too_large(f"a body of more than {self._limits.body_bytes} bytes")
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._complete()
            else:
                raise self.cut()

    def _complete(self) -> HttpResponse:
        answer = self._answer
        assert answer is not None, "h11 ends no message that it did not begin"
        if self._h11.trailing_data[0]:
            raise RemoteProtocolError(
                "http.unsolicited", "bytes follow the end of the response", clause="RFC 9112 §6.3"
            )
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        elif _persists(answer) and not self._ended:
            self._h11 = self._grammar()  # h11 takes every HTTP/1.0 connection for ended
        headers = tuple(
            (name.decode("ascii"), value.decode("latin-1")) for name, value in answer.headers.raw_items()
        )
        return HttpResponse(answer.status_code, headers, bytes(self._body))

    def _check_head(self, head: h11.Response | h11.InformationalResponse) -> None:
        lines = head.headers.raw_items()
        if len(lines) > self._limits.header_count:
            raise _too_large(f"more than {self._limits.header_count} header fields")
        # A head that arrives in one piece never waits in h11's buffer, so its size is counted here too.
        if (
            len(head.reason) + sum(len(name) + len(value) + 4 for name, value in lines)
            > self._limits.header_bytes
        ):
            raise _too_large(f"a header of more than {self._limits.header_bytes} bytes")

    def _check_framing(self, head: h11.Response) -> None:
        fields = dict(head.headers)
        length = fields.get(b"content-length")
        if length is not None and b"transfer-encoding" in fields:
            raise RemoteProtocolError(
                "http.malformed", "both Content-Length and Transfer-Encoding", clause="RFC 9112 §6.3"
            )
        if length is not None and int(length) > self._limits.body_bytes:
            raise _too_large(f"Content-Length of more than {self._limits.body_bytes} bytes")
        coding = fields.get(b"content-encoding", b"identity").strip().lower()
        if coding != b"identity":
            raise RemoteProtocolError(
                "http.encoding",
                f"content coding {coding[:40]!r} was not asked for",
                clause="RFC 9110 §12.5.3",
            )

    def _malformed(self, error: h11.RemoteProtocolError) -> RemoteProtocolError:
        if error.error_status_hint == 431:
            return _too_large(f"a header of more than {self._limits.header_bytes} bytes")
        return RemoteProtocolError("http.malformed", str(error)[:200], clause="RFC 9112")


def _persists(answer: h11.Response) -> bool:
    """Whether an HTTP/1.0 server promised to keep the connection, and its body has a known end
    (RFC 9112 §9.3). OpenSSL's CMP server does."""
    fields = dict(answer.headers)
    options = {option.strip().lower() for option in fields.get(b"connection", b"").split(b",")}
    return answer.http_version == b"1.0" and b"keep-alive" in options and b"content-length" in fields


def _too_large(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError("http.too-large", detail)


def _check_request(request: HttpRequest) -> None:
    if not _TOKEN.fullmatch(request.method) or request.method == "CONNECT":
        raise LocalProtocolError("http.bad-method", repr(request.method[:40]), clause="RFC 9110 §9.1")
    if not _TARGET.fullmatch(request.target):
        raise LocalProtocolError("http.bad-target", repr(request.target[:200]), clause="RFC 9112 §3.2.1")
    for name, value in request.headers:
        if not _TOKEN.fullmatch(name):
            raise LocalProtocolError("http.bad-header", f"name {name[:40]!r}", clause="RFC 9110 §5.1")
        if name.lower() in _OURS and (name.lower(), value.lower()) != ("connection", "keep-alive"):
            raise LocalProtocolError(
                "http.bad-header", f"{name} belongs to the connection", clause="RFC 9112 §6"
            )
        if not _VALUE.fullmatch(value):
            # The value may be a credential: name the header, never show what it holds.
            raise LocalProtocolError(
                "http.bad-header", f"the value of {name} does not fit in its line", clause="RFC 9110 §5.5"
            )
