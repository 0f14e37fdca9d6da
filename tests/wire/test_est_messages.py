"""EST bodies, paths and messages: strict out, lenient in."""

from __future__ import annotations

import base64
import subprocess
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError
from holdfast.wire.est import messages
from holdfast.wire.est.messages import decode_body, encode_body
from holdfast.wire.http import retry_after
from holdfast.wire.model import CsrTemplate, HttpRequest, HttpResponse
from wire.est_parties import NOW, UNKNOWN, Domain

DER = bytes.fromhex("3003020105") + bytes(range(200))
LINE = base64.b64encode(DER)


@given(st.binary(min_size=1, max_size=2000))
def test_what_is_encoded_is_decoded(der: bytes) -> None:
    body = encode_body(der)
    assert decode_body(body) == der
    assert all(len(line) <= 64 for line in body.split(b"\n"))
    assert body.endswith(b"\n")
    assert b"\r" not in body


def test_openssl_reads_our_bodies() -> None:
    read = subprocess.run(
        ["openssl", "base64", "-d"], input=encode_body(DER), capture_output=True, check=True
    )
    assert read.stdout == DER


@pytest.mark.parametrize(
    "body",
    [
        LINE,
        LINE + b"\n",
        encode_body(DER).replace(b"\n", b"\r\n"),
        b"\r\n \t" + LINE[:77] + b"\x0b \n\n" + LINE[77:] + b"\x0c",
        encode_body(DER) + b"\x00",
        LINE + b"\r\n\x00\x00",
        b"-----BEGIN PKCS7-----\n" + encode_body(DER) + b"-----END PKCS7-----\n",
    ],
    ids=["one line", "one line LF", "CRLF", "odd white space", "NUL (libest)", "CRLF NUL", "armour"],
)
def test_the_forms_that_servers_send(body: bytes) -> None:
    assert decode_body(body) == DER


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "est.body-empty"),
        (b" \r\n\x00", "est.body-empty"),
        (LINE[:-1], "est.body-base64"),
        (LINE[:-2], "est.body-base64"),
        (LINE + b"AAAA", "est.body-base64"),
        (LINE + b"\nthanks!", "est.body-base64"),
        (LINE[:9] + b"\x00" + LINE[9:], "est.body-base64"),
        (LINE.replace(b"A", b"-", 1), "est.body-base64"),
        (b"\x30\x82\x01\x00" + bytes(256), "est.body-base64"),
        (b"<html>no</html>", "est.body-base64"),
        (b"-----BEGIN A-----\n" + LINE + b"-----END B-----", "est.body-base64"),
        (b"-----BEGIN A-----\n-----END A-----", "est.body-empty"),
        ((b"-----BEGIN A-----\n" + LINE + b"-----END A-----\n") * 2, "est.body-base64"),
    ],
)
def test_bodies_that_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_body(body)
    assert caught.value.code == code


def test_raw_der_is_called_so() -> None:
    with pytest.raises(RemoteProtocolError, match="raw DER"):
        decode_body(b"\x30\x82\x01\x00" + bytes(256))


def test_a_body_beyond_the_limit_is_not_decoded() -> None:
    assert decode_body(LINE, limit=len(LINE)) == DER
    with pytest.raises(RemoteProtocolError, match=r"^est\.body-size"):
        decode_body(LINE, limit=len(LINE) - 1)


@given(st.binary(max_size=300))
def test_any_body_is_der_or_a_named_error(body: bytes) -> None:
    try:
        decode_body(body)
    except HoldfastError as e:
        if not e.code.startswith("est.body-"):
            raise


def test_paths() -> None:
    assert messages.path("cacerts") == "/.well-known/est/cacerts"
    assert messages.path("simpleenroll", "factory-1") == "/.well-known/est/factory-1/simpleenroll"
    for operation in messages.OPERATIONS:
        assert messages.parse_path(messages.path(operation, "x.y")) == (operation, "x.y")
        assert messages.parse_path(messages.path(operation) + "?a=b") == (operation, None)


@pytest.mark.parametrize("label", ["", "a/b", "cacerts", "..", ".", "a b", "ä", "x" * 65, "a?b", "%2e"])
def test_labels_that_would_change_the_path_are_refused(label: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^est\.label"):
        messages.path("cacerts", label)


@pytest.mark.parametrize(
    "target",
    ["/", "/.well-known/est/", "/.well-known/est/a/b/cacerts", "/.well-known/est/a/b", "/cacerts",
     "/.well-known/est/simpleenroll/cacerts", "/.well-known/estx/cacerts"],
)  # fmt: skip
def test_other_targets_are_not_est(target: str) -> None:
    assert messages.parse_path(target) is None


def test_an_enrollment_request_is_the_same_each_time_and_is_read_back() -> None:
    der = Domain().request().csr
    request = messages.enroll_request("simpleenroll", der, "x")
    assert request == messages.enroll_request("simpleenroll", der, "x")
    assert request.method == "POST"
    assert ("Content-Type", "application/pkcs10") in request.headers
    assert messages.read_csr_body(request) == der
    with pytest.raises(RemoteProtocolError, match=r"^est\.content-type"):
        messages.read_csr_body(HttpRequest("POST", request.target, (), request.body))


def test_certificates_both_ways_and_by_openssl() -> None:
    domain = Domain()
    chain = (domain.root.certificate, domain.issuing.certificate)
    resp = messages.certs_response(chain)
    assert frozenset(messages.read_certs(resp)) == frozenset(chain)
    der = decode_body(resp.body)
    shown = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs"], input=der, capture_output=True, check=True
    )
    assert shown.stdout.count(b"BEGIN CERTIFICATE") == 2
    assert shown.stdout.count(b"Domain Root") >= 2


@pytest.mark.parametrize(
    "value",
    ["application/pkcs7-mime", "APPLICATION/PKCS7-MIME", "application/pkcs7-mime;smime-type=CERTS-ONLY; x=y"],
)
def test_media_types_compare_without_case_and_parameters(value: str) -> None:
    domain = Domain()
    resp = HttpResponse(
        200,
        (("CONTENT-TYPE", value), ("Content-Transfer-Encoding", "quoted-printable")),
        messages.certs_response((domain.root.certificate,)).body,
    )
    assert messages.read_certs(resp) == (domain.root.certificate,)


def test_openssls_certs_only_is_read() -> None:
    """A foreign producer of the same message."""
    domain = Domain()
    pem = domain.root.certificate.public_bytes(Encoding.PEM)
    made = subprocess.run(
        ["openssl", "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"],
        input=pem,
        capture_output=True,
        check=True,
    )
    resp = HttpResponse(200, (("Content-Type", "application/pkcs7-mime"),), made.stdout)
    assert messages.read_certs(resp) == (domain.root.certificate,)


def test_wishes_both_ways() -> None:
    template = CsrTemplate(link_tls_unique=True, subject=(("2.5.4.3", None),))
    assert messages.read_csrattrs(messages.csrattrs_response(template)) == template
    assert messages.csrattrs_response(CsrTemplate()).status == 204


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\x00", encode_body(b"\x30\x00")])
def test_no_wishes(body: bytes) -> None:
    resp = HttpResponse(200, (("Content-Type", "application/csrattrs"),), body)
    assert messages.read_csrattrs(resp) == CsrTemplate()


def test_wishes_of_another_type_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^est\.content-type"):
        messages.read_csrattrs(HttpResponse(200, (("Content-Type", "text/html"),), b"MAA="))


def test_text_answers_carry_the_wait_in_both_forms() -> None:
    assert retry_after(messages.text_response(202, retry_after=timedelta(seconds=61)), UNKNOWN) == timedelta(
        seconds=61
    )
    dated = messages.text_response(503, "busy", retry_after=NOW)
    assert dated.header("Retry-After") == "Sun, 01 Nov 2026 12:00:00 GMT"


def test_a_refusal_is_one_bounded_line_of_plain_text() -> None:
    loud = HttpResponse(400, (("Content-Type", "text/plain"),), b"bad\r\n\x1b[31mCSR\xff" + b"x" * 5000)
    shown = str(messages.read_refusal(loud))
    assert shown.startswith("HTTP 400: bad [31mCSR")
    assert len(shown) < 400
    page = HttpResponse(404, (("Content-Type", "text/html"),), b"<html>")
    assert str(messages.read_refusal(page)) == "HTTP 404"
