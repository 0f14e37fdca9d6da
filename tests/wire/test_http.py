"""HTTP semantics: waits and dates, media types, redirects, challenges and their answers."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import (
    LONGEST_WAIT,
    Challenge,
    HttpCredentials,
    absolute_location,
    basic,
    challenges,
    digest,
    format_http_date,
    http_date,
    media_type,
    printable,
    retry_after,
    same_origin_target,
    strongest,
)
from holdfast.wire.model import ClockState, HttpResponse, Moment

NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
TRUSTED = Moment(NOW, NOW, ClockState.TRUSTED)
UNKNOWN = replace(TRUSTED, state=ClockState.UNKNOWN)
_FIRST, _LAST = datetime(1970, 1, 1), datetime(9999, 12, 31)  # noqa: DTZ001 - hypothesis adds the zone
ORIGIN = "https://est.example:8443"


def _headers(*pairs: tuple[str, str]) -> HttpResponse:
    return HttpResponse(200, pairs)


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms_of_rfc_9110_name_the_same_moment(text: str) -> None:
    assert http_date(text) == NOW


def test_a_leap_second_is_read() -> None:
    assert http_date("Sun, 06 Nov 1994 08:49:60 GMT").second == 59


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 PST",
    ],
)
def test_other_dates_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^http\.date"):
        http_date(text)


@given(st.datetimes(min_value=_FIRST, max_value=_LAST, timezones=st.just(UTC)))
def test_written_dates_are_read_back(moment: datetime) -> None:
    assert http_date(format_http_date(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("120", 120), (" 7 ", 7), ("9" * 40, LONGEST_WAIT.total_seconds())]
)
def test_retry_after_in_seconds_needs_no_clock(value: str, seconds: float) -> None:
    assert retry_after(_headers(("retry-after", value)), UNKNOWN) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "-5", "1.5", "soon", "١٢", "+3"])
def test_retry_after_that_cannot_be_read_counts_as_absent(value: str) -> None:
    assert retry_after(_headers(("Retry-After", value)), TRUSTED) is None


def test_retry_after_absent() -> None:
    assert retry_after(_headers(), TRUSTED) is None


def test_retry_after_as_date_is_measured_by_the_trusted_clock() -> None:
    later = format_http_date(NOW + timedelta(minutes=3))
    assert retry_after(_headers(("Retry-After", later)), TRUSTED) == timedelta(minutes=3)


def test_retry_after_as_date_without_any_clock_is_unusable() -> None:
    later = format_http_date(NOW + timedelta(minutes=3))
    assert retry_after(_headers(("Retry-After", later)), UNKNOWN) is None


def test_retry_after_as_date_is_measured_by_the_servers_own_date() -> None:
    then = NOW + timedelta(days=12000)
    pairs = (
        ("Date", format_http_date(then)),
        ("Retry-After", format_http_date(then + timedelta(seconds=90))),
    )
    assert retry_after(_headers(*pairs), UNKNOWN) == timedelta(seconds=90)
    assert retry_after(_headers(*pairs), TRUSTED) == timedelta(seconds=90)


def test_retry_after_in_the_past_is_now_and_far_away_is_bounded() -> None:
    past, far = format_http_date(NOW - timedelta(days=1)), "Fri, 31 Dec 9999 23:59:59 GMT"
    assert retry_after(_headers(("Retry-After", past)), TRUSTED) == timedelta(0)
    assert retry_after(_headers(("Retry-After", far)), TRUSTED) == LONGEST_WAIT


@pytest.mark.parametrize(
    ("value", "essence", "parameters"),
    [
        ("application/pkcs7-mime", "application/pkcs7-mime", {}),
        (
            "Application/PKCS7-MIME; Smime-Type=certs-only",
            "application/pkcs7-mime",
            {"smime-type": "certs-only"},
        ),
        ('text/plain;charset="utf\\-8";x=1', "text/plain", {"charset": "utf-8", "x": "1"}),
        ("application/pkcs7-mime ;", "application/pkcs7-mime", {}),
    ],
)
def test_media_types(value: str, essence: str, parameters: dict[str, str]) -> None:
    assert media_type(_headers(("content-type", value))) == (essence, parameters)


def test_no_media_type() -> None:
    assert media_type(_headers()) == ("", {})


def test_text_of_a_peer_cannot_write_a_log_of_its_own() -> None:
    assert printable("a\r\nb\x1b[31mc\x00\u202e d") == "a b [31mc d"
    assert len(printable("x" * 9999, 50)) == 50


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://est.example:8443/a/b?c=d#e", "/a/b?c=d"),
        ("https://EST.example:8443", "/"),
        ("/x", "/x"),
        ("y", "/base/y"),
        ("?q=1", "/base/op?q=1"),
        ("https:///stays-here", "/stays-here"),
        ("https://est.example/a", None),
        ("https://est.example:8444/a", None),
        ("//other.example/a", None),
        ("https://est.example.evil.example:8443/a", None),
    ],
)
def test_redirect_targets(location: str, target: str | None) -> None:
    assert same_origin_target(location, ORIGIN, base="/base/op") == target


def test_the_default_port_is_part_of_the_origin() -> None:
    assert same_origin_target("https://est.example:443/a", "https://est.example") == "/a"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://est.example:8443/a",
        "ftp://est.example/",
        "https://user@est.example:8443/a",
        "https://est.example:0/",
        "https://est.example:99999/",
        "https://[::1/",
        "https://est.example:8443/a b",
        "/a\r\nX-Evil: 1",
        "/a\tb",
        "/a\x7fb",
        "/ä",
        "javascript:alert(1)",
        "/" + "a" * 3000,
    ],
)
def test_redirects_to_anything_but_https_are_refused(location: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^http\.location"):
        same_origin_target(location, ORIGIN)


@given(st.text(max_size=60))
def test_any_location_is_a_target_or_a_named_error(location: str) -> None:
    try:
        target = same_origin_target(location, ORIGIN)
    except HoldfastError as e:
        if e.code != "http.location":
            raise
    else:
        assert target is None or target.startswith("/")
        assert absolute_location(location, ORIGIN).startswith("https://")


def test_challenges_of_one_and_of_several_headers() -> None:
    resp = _headers(
        ("WWW-Authenticate", 'Basic realm="a, b", Digest realm="c\\"d", qop="auth,auth-int", nonce="n="'),
        ("www-authenticate", "Negotiate abc=="),
    )
    assert challenges(resp) == (
        Challenge("basic", {"realm": "a, b"}),
        Challenge("digest", {"realm": 'c"d', "qop": "auth,auth-int", "nonce": "n="}),
        Challenge("negotiate", {}),
    )


@pytest.mark.parametrize("text", ['Basic realm="open', "=", "Basic realm=;", "B" * 9000])
def test_unreadable_challenges_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^http\.challenge"):
        challenges(_headers(("WWW-Authenticate", text)))


@given(st.text(alphabet='abAB ,="\\;\t/', max_size=40))
def test_any_challenge_is_read_or_refused_by_name(text: str) -> None:
    try:
        found = challenges(_headers(("WWW-Authenticate", text)))
    except RemoteProtocolError as e:
        if e.code != "http.challenge":
            raise
    else:
        assert all(c.scheme for c in found)


def test_the_strongest_challenge_wins() -> None:
    weak = Challenge("basic", {"realm": "r"})
    md5 = Challenge("digest", {"realm": "r", "nonce": "n"})
    sha = Challenge("digest", {"realm": "r", "nonce": "n", "algorithm": "sha-256-sess"})
    odd = Challenge("digest", {"algorithm": "SHA-512-256"})
    assert strongest((weak, md5, sha, odd)) is sha
    assert strongest((weak, odd, md5)) is md5
    assert strongest((odd, weak)) is weak
    assert strongest((odd, Challenge("negotiate", {}))) is None


def test_basic_is_the_example_of_rfc_7617() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert base64.b64decode(basic("test", "123£").removeprefix("Basic ")) == "test:123£".encode()


@pytest.mark.parametrize(("user", "secret"), [("a:b", "c"), ("a\r\n", "c"), ("a", "c\x00")])
def test_basic_refuses_what_it_cannot_carry(user: str, secret: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^http\.credentials"):
        basic(user, secret)


# RFC 7616 §3.9.1: both examples of the same request.
@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_is_the_example_of_rfc_7616(algorithm: str, response: str) -> None:
    challenge = Challenge(
        "digest",
        {
            "realm": "http-auth@example.org",
            "qop": "auth, auth-int",
            "algorithm": algorithm,
            "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
        },
    )
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    answer = digest(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", cnonce=cnonce)
    assert f'response="{response}"' in answer
    assert "nc=00000001" in answer
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in answer


def test_digest_without_qop_is_the_example_of_rfc_2069() -> None:
    """The response is that of erratum 749, which corrects the RFC's own figure."""
    challenge = Challenge(
        "digest", {"realm": "testrealm@host.com", "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093"}
    )
    answer = digest(challenge, "Mufasa", "CircleOfLife", "GET", "/dir/index.html", cnonce="unused")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in answer
    assert "nc=" not in answer
    assert "cnonce" not in answer


def test_a_session_key_depends_on_both_nonces() -> None:
    def response(**parameters: str) -> str:
        challenge = Challenge("digest", {"realm": "r", "nonce": "n", "qop": "auth", **parameters})
        return digest(challenge, "u", "p", "GET", "/", cnonce="c").partition('response="')[2][:64]

    assert response(algorithm="SHA-256-sess") != response(algorithm="SHA-256")


def test_a_user_name_beyond_ascii_is_sent_extended() -> None:
    challenge = Challenge("digest", {"realm": "r", "nonce": "n"})
    assert "username*=UTF-8''J%C3%A4s%C3%B8n" in digest(challenge, "Jäsøn", "p", "GET", "/", cnonce="c")


@pytest.mark.parametrize(
    "parameters",
    [
        {"realm": "r"},
        {"realm": "r", "nonce": "n", "algorithm": "SHA-1"},
        {"realm": "r", "nonce": "n", "qop": "auth-int"},
        {"realm": "r", "nonce": "n\r\nX: y"},
    ],
    ids=["no nonce", "algorithm", "auth-int", "header splitting"],
)
def test_digest_refuses_challenges_that_it_cannot_meet(parameters: dict[str, str]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^http\.challenge"):
        digest(Challenge("digest", parameters), "u", "p", "GET", "/", cnonce="c")


def test_a_password_never_shows() -> None:
    assert "hunter2" not in repr(HttpCredentials("u", "hunter2"))
