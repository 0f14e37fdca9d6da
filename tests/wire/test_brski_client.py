"""The pledge's exchanges: what goes out, and what each answer of a registrar leads to."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, oids
from holdfast.wire.brski import client
from holdfast.wire.brski.client import Attempt, Vouched, obtain, prepare, request_voucher
from holdfast.wire.brski.messages import MEDIA_TYPE, Telemetry, VoucherRequest
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import HttpResponse, Moved, Pending, Rejected
from wire.brski_parties import NOW, SERIAL, TRUSTED, UNKNOWN, Parties, Talk, converse, issue, ok


@pytest.fixture(scope="module")
def world() -> Parties:
    return Parties()


@pytest.fixture(scope="module")
def attempt(world: Parties) -> Attempt:
    return world.attempt()


def ask(world: Parties, attempt: Attempt, *answers: HttpResponse | Exception) -> Talk:
    return converse(request_voucher(attempt, world.trust, world.tls, TRUSTED), *answers)


def obtaining(world: Parties, attempt: Attempt, *answers: HttpResponse | Exception) -> Talk:
    return converse(obtain(attempt, world.trust, world.tls, TRUSTED), *answers)


def honest(world: Parties, attempt: Attempt) -> HttpResponse:
    return ok(world.sign(world.voucher(attempt)))


# --- the request ------------------------------------------------------------------------------------------


def test_the_request_says_who_we_are_and_whom_we_see(world: Parties, attempt: Attempt) -> None:
    signed = cms.open_signed(attempt.pvr)
    assert signed.content_type == oids.CT_ANIMA_JSON_VOUCHER
    assert signed.signer == world.idevid.certificate
    assert signed.signing_time == NOW
    assert VoucherRequest.decode(signed.content) == VoucherRequest(
        SERIAL, attempt.nonce, "proximity", world.registrar.der, NOW
    )
    assert attempt.registrar_certificate == world.registrar.der
    assert attempt.nonce == base64.b64encode(bytes(range(24))).decode()


def test_without_a_trusted_clock_the_request_names_no_time(world: Parties) -> None:
    signed = cms.open_signed(world.attempt(UNKNOWN).pvr)
    assert signed.signing_time is None
    assert VoucherRequest.decode(signed.content).created_on is None


def test_the_idevid_chain_travels_with_the_request(world: Parties) -> None:
    line = issue("Maker Line CA", world.vendor, ca=True)
    device = issue("gateway", line, serial=SERIAL)
    attempt = prepare(device.key, (device.certificate, line.certificate), world.tls, TRUSTED, bytes)
    assert set(cms.open_signed(attempt.pvr).certificates) == {device.certificate, line.certificate}


def test_every_attempt_draws_its_own_nonce(world: Parties) -> None:
    drawn = iter(range(256))
    made = [
        prepare(
            world.idevid.key,
            (world.idevid.certificate,),
            world.tls,
            TRUSTED,
            lambda n: bytes([next(drawn)]) * n,
        )
        for _ in range(2)
    ]
    assert made[0].nonce != made[1].nonce
    assert all(len(base64.b64decode(attempt.nonce)) >= 16 for attempt in made)


def test_openssl_verifies_the_request_against_the_makers_authority(world: Parties, tmp_path: Path) -> None:
    attempt = world.attempt()
    (tmp_path / "pvr.der").write_bytes(attempt.pvr)
    (tmp_path / "ca.pem").write_bytes(world.vendor.certificate.public_bytes(Encoding.PEM))
    content = tmp_path / "content"
    trust = ["-CAfile", "ca.pem", "-purpose", "any", "-attime", str(int(NOW.timestamp()))]
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "pvr.der", "-out", "content"]
    done = subprocess.run([*command, *trust], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(content.read_bytes())["ietf-voucher-request:voucher"]["nonce"] == attempt.nonce
    shown = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", "pvr.der"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert oids.CT_ANIMA_JSON_VOUCHER in shown.stdout or "id-ct-animaJSONVoucher" in shown.stdout
    assert "signedAttrs:\n            object: contentType" in shown.stdout


def test_what_a_caller_must_bring(world: Parties) -> None:
    for tls, chain in ((replace(world.tls, peer_chain=()), (world.idevid.certificate,)), (world.tls, ())):
        with pytest.raises(LocalProtocolError) as caught:
            prepare(world.idevid.key, chain, tls, TRUSTED, bytes)
        assert caught.value.code == "brski.prepare"
    with pytest.raises(LocalProtocolError) as caught:
        prepare(world.idevid.key, (world.idevid.certificate,), world.tls, TRUSTED, lambda _: b"short")
    assert caught.value.code == "brski.nonce"
    with pytest.raises(LocalProtocolError):
        prepare(world.sister.key, (world.idevid.certificate,), world.tls, TRUSTED, bytes)


def test_how_the_request_is_posted(world: Parties, attempt: Attempt) -> None:
    talk = ask(world, attempt, honest(world, attempt))
    (request,) = talk.requests
    assert (request.method, request.target) == ("POST", "/.well-known/brski/requestvoucher")
    assert dict(request.headers) == {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
    assert request.body == attempt.pvr
    assert isinstance(talk.outcome, Vouched)


def test_a_connection_to_another_server_than_the_request_names(world: Parties, attempt: Attempt) -> None:
    other = world.connection(world.stranger)
    talk = converse(request_voucher(attempt, world.trust, other, TRUSTED))
    assert talk.requests == ()
    assert isinstance(talk.error, TrustError)
    assert talk.error.code == "voucher.registrar-changed"


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((("Retry-After", "7"),), 7),
        ((("retry-after", "86400"),), 60),
        ((("Retry-After", "0"),), 1),
        ((("Retry-After", "Sun, 01 Nov 2026 12:00:30 GMT"),), 30),
        ((("Retry-After", "Sun, 01 Nov 2020 12:00:00 GMT"),), 1),
        ((("Retry-After", "soon"),), 60),
        ((), 60),
    ],
)
def test_202_waits_within_the_bounds_of_the_rfc(
    world: Parties, attempt: Attempt, headers: tuple[tuple[str, str], ...], seconds: int
) -> None:
    assert ask(world, attempt, HttpResponse(202, headers)).outcome == Pending(timedelta(seconds=seconds))


def test_after_202_the_same_request_goes_again(world: Parties, attempt: Attempt) -> None:
    first = ask(world, attempt, HttpResponse(202)).requests
    assert ask(world, attempt, HttpResponse(202)).requests == first


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "registrar.bad-request"),
        (401, "registrar.unauthorized"),
        (403, "registrar.forbidden"),
        (404, "registrar.unknown-device"),
        (406, "registrar.not-acceptable"),
        (415, "registrar.unsupported-media-type"),
        (418, "registrar.refused"),
        (500, "registrar.failed"),
        (503, "registrar.failed"),
    ],
)
def test_a_refusal_is_named_by_its_status_and_keeps_the_words(
    world: Parties, attempt: Attempt, status: int, code: str
) -> None:
    talk = ask(world, attempt, HttpResponse(status, (), b"not\r\nours\x1b[31m\xff"))
    assert talk.outcome == Rejected(code, f"HTTP {status}: not ours [31m\ufffd")


def test_a_long_refusal_is_cut(world: Parties, attempt: Attempt) -> None:
    assert len(ask(world, attempt, HttpResponse(404, (), b"a" * 100_000)).outcome.detail) < 600
    assert ask(world, attempt, HttpResponse(404)).outcome.detail == "HTTP 404"


def redirect(location: str, status: int = 307) -> HttpResponse:
    return HttpResponse(status, (("Location", location),))


def test_one_redirect_inside_the_origin_is_followed(world: Parties, attempt: Attempt) -> None:
    talk = ask(world, attempt, redirect("/brski/v2?a=1"), honest(world, attempt))
    assert [request.target for request in talk.requests][1:] == ["/brski/v2?a=1"]
    assert talk.requests[1].body == attempt.pvr
    assert isinstance(talk.outcome, Vouched)


def test_a_second_redirect_is_refused(world: Parties, attempt: Attempt) -> None:
    talk = ask(world, attempt, redirect("/a"), redirect("/b"))
    assert len(talk.requests) == 2
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "voucher.redirect"


@pytest.mark.parametrize(
    "location", ["https://other.example/x", "https://registrar.local/x", "//other.example:8443/x"]
)
def test_another_origin_is_for_the_caller_to_decide(world: Parties, attempt: Attempt, location: str) -> None:
    talk = ask(world, attempt, redirect(location))
    assert len(talk.requests) == 1
    assert isinstance(talk.outcome, Moved)
    assert talk.outcome.location == "https:" + location.removeprefix("https:")


@pytest.mark.parametrize("location", ["", "ftp://x/", "https://a b/", "https://u@x/"])
def test_a_redirect_to_nowhere_good(world: Parties, attempt: Attempt, location: str) -> None:
    talk = ask(world, attempt, redirect(location))
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "http.location"


@pytest.mark.parametrize("status", [100, 201, 204, 300, 303, 304])
def test_a_status_that_means_nothing_here(world: Parties, attempt: Attempt, status: int) -> None:
    talk = ask(world, attempt, replace(honest(world, attempt), status=status))
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "voucher.status"


def test_a_sign_in_page_is_no_registrar(world: Parties, attempt: Attempt) -> None:
    for response in (
        ok(b"<html>", "text/html; x=1"),
        redirect("http://registrar.local:8443/x"),
        HttpResponse(511, (), b""),
    ):
        talk = ask(world, attempt, response)
        assert isinstance(talk.error, RemoteProtocolError)
        assert talk.error.code == "network.captive-portal"


@pytest.mark.parametrize("kind", ["application/json", "application/voucher-jws+json", "text/plain; x=1", ""])
def test_another_media_type(world: Parties, attempt: Attempt, kind: str) -> None:
    talk = ask(world, attempt, ok(honest(world, attempt).body, kind))
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "voucher.media-type"


def test_the_media_type_compares_without_case_and_parameters(world: Parties, attempt: Attempt) -> None:
    answer = ok(honest(world, attempt).body, "Application/Voucher-CMS+json; charset=x")
    assert isinstance(ask(world, attempt, answer).outcome, Vouched)


def test_base64_is_not_der(world: Parties, attempt: Attempt) -> None:
    talk = ask(world, attempt, ok(base64.b64encode(honest(world, attempt).body)))
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "voucher.cms"


def test_too_large_a_body(world: Parties, attempt: Attempt) -> None:
    talk = ask(world, attempt, ok(b"\x30" * 70_000))
    assert isinstance(talk.error, RemoteProtocolError)
    assert talk.error.code == "voucher.too-large"


# --- telemetry --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 500, 302])
def test_success_is_reported_and_the_answer_ignored(world: Parties, attempt: Attempt, status: int) -> None:
    talk = obtaining(world, attempt, honest(world, attempt), HttpResponse(status, (), b"whatever"))
    assert isinstance(talk.outcome, Vouched)
    report = talk.requests[1]
    assert (report.method, report.target) == ("POST", "/.well-known/brski/voucher_status")
    assert dict(report.headers) == {"Content-Type": "application/json"}
    assert Telemetry.decode(report.body) == Telemetry(True)


def test_a_refused_voucher_is_reported_by_code_alone_and_raised(world: Parties, attempt: Attempt) -> None:
    forged = ok(world.sign(world.voucher(attempt, serial_number="HF-0043")))
    talk = obtaining(world, attempt, forged, HttpResponse(404))
    assert isinstance(talk.error, TrustError)
    assert talk.error.code == "voucher.serial-number"
    assert Telemetry.decode(talk.requests[1].body) == Telemetry(
        False, "voucher.serial-number", {"code": "voucher.serial-number"}
    )
    assert b"HF-00" not in talk.requests[1].body


def test_lost_telemetry_does_not_hide_why_a_voucher_was_refused(world: Parties, attempt: Attempt) -> None:
    forged = ok(world.sign(world.voucher(attempt, nonce="other")))
    talk = obtaining(world, attempt, forged, TransportError("link.closed"))
    assert isinstance(talk.error, TrustError)
    assert talk.error.code == "voucher.nonce"
    assert isinstance(talk.error.__cause__, TransportError)


@pytest.mark.parametrize("answer", [HttpResponse(202), HttpResponse(403), redirect("https://other.example/")])
def test_without_a_voucher_there_is_nothing_to_report(
    world: Parties, attempt: Attempt, answer: HttpResponse
) -> None:
    assert len(obtaining(world, attempt, answer).requests) == 1


def test_enrollment_telemetry() -> None:
    done = converse(client.report_enroll_status(ok=True), HttpResponse(404))
    assert done.outcome is None
    assert done.requests[0].target == "/.well-known/brski/enrollstatus"
    assert Telemetry.decode(done.requests[0].body) == Telemetry(True)
    failed = converse(
        client.report_enroll_status(False, "est.key-mismatch", "not our key", "RFC 7030 §4.2.3")
    )
    assert Telemetry.decode(failed.requests[0].body) == Telemetry(
        False,
        "est.key-mismatch: not our key: RFC 7030 §4.2.3",
        {"code": "est.key-mismatch", "detail": "not our key", "clause": "RFC 7030 §4.2.3"},
    )


def test_telemetry_stays_small_and_writable_whatever_the_detail() -> None:
    talk = converse(client.report_voucher_status(False, "a.b", "\udcff" + "é" * 100_000))
    assert len(talk.requests[0].body) < 10_000
    assert json.loads(talk.requests[0].body)["status"] is False
