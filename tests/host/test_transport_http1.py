"""The sans-IO HTTP client: what it sends, what it accepts, and every way a server can get it wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.host.http1 import Http1Client, MessageLimits
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError
from holdfast.wire.model import HttpRequest, HttpResponse

GET = HttpRequest("GET", "/x")
LIMITS = MessageLimits(header_bytes=512, header_count=10, body_bytes=100, interim=2)


def client(limits: MessageLimits = LIMITS) -> Http1Client:
    return Http1Client("est.example", limits, "holdfast")


def exchange(*pieces: bytes, http: Http1Client | None = None, request: HttpRequest = GET) -> HttpResponse:
    """Feed *pieces* and return the response; nothing may be left over."""
    http = http or client()
    http.request(request)
    response = None
    for piece in pieces:
        assert response is None, "a piece came after the response"
        response = http.receive(piece)
    assert response is not None
    return response


def test_a_get_is_sent_with_host_and_user_agent_and_no_body() -> None:
    sent = client().request(HttpRequest("GET", "/.well-known/est/cacerts", (("Accept", "*/*"),)))
    head, _, body = sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"GET /.well-known/est/cacerts HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: est.example",
        b"User-Agent: holdfast",
        b"Accept-Encoding: identity",
        b"Accept: */*",
    }
    assert body == b""


def test_a_connection_that_an_older_server_keeps_carries_the_next_request() -> None:
    http = client()
    kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n"
    asking = HttpRequest("POST", "/x", (("Connection", "keep-alive"),), b"abc")
    assert exchange(kept + b"hi", http=http, request=asking).body == b"hi"
    assert exchange(kept + b"ho", http=http, request=asking).body == b"ho"
    with pytest.raises(LocalProtocolError, match=r"http\.bad-header"):
        client().request(HttpRequest("POST", "/x", (("Connection", "close"),)))


def test_a_post_carries_its_length_even_if_empty() -> None:
    assert client().request(HttpRequest("POST", "/x", (), b"abc")).endswith(b"Content-Length: 3\r\n\r\nabc")
    assert client().request(HttpRequest("POST", "/x")).endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (HttpRequest("GET", "/x", (("X", "a\r\nEvil: 1"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("X", "a\nEvil: 1"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("X", "a\x00"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("X", "€"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("X\r\nEvil", "a"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("Content-Length", "7"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("Transfer-Encoding", "chunked"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("Host", "other"),)), "http.bad-header"),
        (HttpRequest("GET", "/x HTTP/1.1\r\nEvil: 1\r\n", ()), "http.bad-target"),
        (HttpRequest("GET", "https://other/x", ()), "http.bad-target"),
        (HttpRequest("GET", "", ()), "http.bad-target"),
        (HttpRequest("GET", "/x#y", ()), "http.bad-target"),
        (HttpRequest("GET", "/x", (("X", " a"),)), "http.bad-header"),
        (HttpRequest("GET", "/x", (("X", "a "),)), "http.bad-header"),
        (HttpRequest("GET X", "/x", ()), "http.bad-method"),
        (HttpRequest("CONNECT", "/x", ()), "http.bad-method"),
    ],
)
def test_a_request_that_is_not_one_plain_request_is_refused(request_: HttpRequest, code: str) -> None:
    http = client()
    with pytest.raises(LocalProtocolError) as caught:
        http.request(request_)
    assert caught.value.code == code
    assert http.reusable


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        client().request(HttpRequest("GET", "/x", (("Authorization", "Basic c2VjcmV0\n"),)))
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("pieces", "body", "reusable"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",), b"hi", True),
        ((b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\nh", b"i"), b"hi", True),
        ((b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",), b"hi", True),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n",),
            b"hi",
            True,
        ),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b"", True),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",), b"hi", True),
        ((b"HTTP/1.1 200 OK\r\n\r\n", b"h", b"i", b""), b"hi", False),
        ((b"HTTP/1.0 200 OK\r\n\r\n", b"hi", b""), b"hi", False),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",), b"hi", False),
        (
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",),
            b"hi",
            True,
        ),
        ((b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", b"hi", b""), b"hi", False),
        ((b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",), b"hi", False),
    ],
)
def test_every_framing_of_a_body(pieces: tuple[bytes, ...], body: bytes, reusable: bool) -> None:
    http = client()
    response = exchange(*pieces, http=http)
    assert response.body == body
    assert http.reusable is reusable


def test_two_requests_follow_one_another() -> None:
    http = client()
    for number in (b"1", b"2"):
        response = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Y: z\r\n\r\n" + number, http=http)
        assert (response.status, response.body, response.header("x-y")) == (200, number, "z")


def test_a_request_waits_for_the_answer_to_the_last() -> None:
    http = client()
    http.request(GET)
    with pytest.raises(LocalProtocolError) as caught:
        http.request(GET)
    assert caught.value.code == "http.busy"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"14\r\n" + b"x" * 20 + b"\r\n"] * 6),
        (b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 20] * 6),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 513 + b"\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nX: ", *[b"y" * 60] * 12),
        (b"HTTP/1.1 200 " + b"y" * 513 + b"\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11 + b"\r\n",),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3,),
        (b"HTTP/1.1 103 Hints\r\nX: " + b"y" * 513 + b"\r\n\r\n",),
        # one byte of body in each chunk costs hundreds of bytes of chunk extension
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1;" + b"e" * 400 + b"\r\nx\r\n"] * 7),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: ", *[b"y" * 200] * 4),
    ],
    ids=[
        "length", "one-chunk", "chunks", "until-close", "header-at-once", "header-in-pieces", "reason",
        "fields", "interim-count", "interim-size", "chunk-extensions", "trailer",
    ],
)  # fmt: skip
def test_every_size_has_a_bound(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        exchange(*pieces)
    assert caught.value.code == "http.too-large"


def test_what_is_just_within_the_bounds_is_accepted() -> None:
    assert len(exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100).body) == 100
    ten = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9 + b"Content-Length: 0\r\n\r\n"
    assert exchange(ten).header_all("X") == ("y",) * 9


@pytest.mark.parametrize(
    "pieces",
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n",),
        (b"\x15\x03\x01\x00\x02\x02\x28",),
        (b"HTTP/1.1 20 OK\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
    ],
)
def test_what_is_not_http_is_named_so(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        exchange(*pieces)
    assert caught.value.code == "http.malformed"


def test_bytes_after_a_response_are_an_error() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n")
    assert caught.value.code == "http.unsolicited"


def test_a_content_coding_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        exchange(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx")
    assert caught.value.code == "http.encoding"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
    ],
)
def test_a_truncated_response_is_not_a_response(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(TransportError) as caught:
        exchange(*pieces)
    assert caught.value.code == "transport.truncated"


def test_a_connection_that_ends_unanswered_is_closed() -> None:
    with pytest.raises(TransportError) as caught:
        exchange(b"")
    assert caught.value.code == "transport.closed"


VALID = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)


def feed(data: bytes, cuts: list[int]) -> None:
    """Feed *data* cut at *cuts*, then the end; only our own errors may come out."""
    http = client()
    http.request(GET)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            if end > start and http.receive(data[start:end]) is not None:
                return
        http.receive(b"")
    except (RemoteProtocolError, TransportError):
        return


@settings(max_examples=at_least(300))
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_no_bytes_raise_anything_else(data: bytes, cuts: list[int]) -> None:
    feed(data, cuts)


@settings(max_examples=at_least(500))
@given(
    st.integers(0, len(VALID) - 1),
    st.binary(max_size=3),
    st.integers(0, 4),
    st.lists(st.integers(0, 400), max_size=3),
)
def test_no_mutation_raises_anything_else(at: int, insert: bytes, drop: int, cuts: list[int]) -> None:
    feed(VALID[:at] + insert + VALID[at + drop :], cuts)
