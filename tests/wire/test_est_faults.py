"""In each test the EST server breaks one rule, and the device trusts nothing and says which rule it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, Retry, TrustError
from holdfast.wire.est import messages
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.messages import certs_response, encode_body, text_response
from holdfast.wire.est.session import EstLimits, Session
from holdfast.wire.http import HttpCredentials
from holdfast.wire.issued import CLOCK_SKEW, NamePolicy
from holdfast.wire.model import HttpRequest, HttpResponse, Issued, Moment, Purpose, Rejected
from wire.est_parties import (
    NOW,
    PROVISIONAL,
    TLS13,
    TRUSTED,
    UNKNOWN,
    ZEROS,
    Domain,
    authority,
    certificate,
    name,
    new_key,
    run,
    run_recorded,
)

EST = EstProtocol()
PASSWORD = EstProtocol(credentials=HttpCredentials("gateway", "s3cret-pass"), random=ZEROS)
BASIC = HttpResponse(401, (("WWW-Authenticate", 'Basic realm="est"'),))
DIGEST = HttpResponse(401, (("WWW-Authenticate", 'Digest realm="est", nonce="n", qop="auth"'),))
STALE = HttpResponse(401, (("WWW-Authenticate", 'Digest realm="est", nonce="n", qop="auth", stale=TRUE'),))
PKCS7 = ("Content-Type", "application/pkcs7-mime; smime-type=certs-only")

EMPTY_SIGNED_DATA = bytes.fromhex(  # openssl crl2pkcs7 -nocrl
    "302506092a864886f70d010702a01830160201013100300b06092a864886f70d010701a0003100"
)


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain()


def refused(
    domain: Domain, *answers: HttpResponse, now: Moment = TRUSTED, est: EstProtocol = EST
) -> HoldfastError:
    """The error with which a first enrollment ends."""
    with pytest.raises(HoldfastError) as caught:
        run(est.enroll(domain.request(), TLS13, now), *answers)
    return caught.value


def judged(
    domain: Domain,
    certificates: Callable[[bytes], tuple[x509.Certificate, ...]],
    *,
    now: Moment = TRUSTED,
    est: EstProtocol = EST,
) -> HoldfastError:
    """The error with which an enrollment ends whose answer is made from the CSR."""
    req = domain.request()
    with pytest.raises(HoldfastError) as caught:
        run(est.enroll(req, TLS13, now), certs_response(certificates(req.csr)))
    return caught.value


def fault(error: HoldfastError) -> tuple[type[HoldfastError], str]:
    return type(error), error.code


# --- the certificate


def test_the_fault_free_answer_is_accepted(domain: Domain) -> None:
    """Each fault below differs from this answer in one thing."""
    req = domain.request()
    assert isinstance(run(EST.enroll(req, TLS13, TRUSTED), certs_response((domain.issue(req.csr),))), Issued)


def test_a_certificate_for_another_key(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der, public=new_key().public_key()),))
    assert fault(error) == (TrustError, "est.key-mismatch")


def test_no_certificate_at_all(domain: Domain) -> None:
    error = refused(domain, HttpResponse(200, (PKCS7,), encode_body(EMPTY_SIGNED_DATA)))
    assert fault(error) == (RemoteProtocolError, "cms.no-certificates")


def test_two_end_entity_certificates_for_our_key(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der), domain.issue(der)))
    assert fault(error) == (RemoteProtocolError, "est.several-certificates")


def test_a_strangers_certificate_beside_ours(domain: Domain) -> None:
    def both(der: bytes) -> tuple[x509.Certificate, ...]:
        return domain.issue(der), domain.issue(der, public=new_key().public_key())

    assert fault(judged(domain, both)) == (RemoteProtocolError, "est.several-certificates")


def test_too_many_certificates(domain: Domain) -> None:
    extra = tuple(authority(f"CA {n}").certificate for n in range(4))
    error = judged(domain, lambda der: (domain.issue(der), *extra))
    assert fault(error) == (RemoteProtocolError, "est.too-many-certificates")


def test_an_issuer_that_is_not_of_the_domain(domain: Domain) -> None:
    stranger = authority("Domain Issuing")
    error = judged(domain, lambda der: (domain.issue(der, stranger), stranger.certificate))
    assert isinstance(error, TrustError)
    assert error.code in ("chain.untrusted", "chain.bad-signature")


def test_a_root_that_the_answer_brings_along_is_not_trusted(domain: Domain) -> None:
    stranger = authority("Other Root")
    error = judged(domain, lambda der: (domain.issue(der, stranger), stranger.certificate))
    assert fault(error) == (TrustError, "chain.untrusted")


def test_intermediates_are_no_anchors(domain: Domain) -> None:
    req = replace(domain.request(), anchors=())
    with pytest.raises(TrustError, match=r"^chain\.untrusted"):
        run(EST.enroll(req, TLS13, TRUSTED), certs_response((domain.issue(req.csr),)))


def test_a_ca_certificate(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der, ca=True),))
    assert fault(error) == (TrustError, "chain.is-ca")


@pytest.mark.parametrize("now", [TRUSTED, UNKNOWN], ids=["clock", "no clock"])
def test_an_expired_certificate(domain: Domain, now: Moment) -> None:
    past = now.floor - timedelta(days=1)
    start = past - timedelta(days=30)
    error = judged(domain, lambda der: (domain.issue(der, start=start, end=past),), now=now)
    assert fault(error) == (TrustError, "chain.expired")


def test_a_certificate_from_the_future(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der, start=NOW + timedelta(hours=1)),))
    assert fault(error) == (TrustError, "chain.not-yet-valid")


def test_a_certificate_that_begins_beyond_the_skew_of_two_clocks(domain: Domain) -> None:
    start = NOW + CLOCK_SKEW + timedelta(seconds=1)
    error = judged(domain, lambda der: (domain.issue(der, start=start),))
    assert fault(error) == (TrustError, "chain.not-yet-valid")


@pytest.mark.parametrize("ahead", [timedelta(seconds=1), CLOCK_SKEW])
def test_a_ca_whose_clock_runs_a_little_ahead(domain: Domain, ahead: timedelta) -> None:
    """libest dates a certificate at the second in which it signs, which may be one after ours."""
    req = domain.request()
    answer = certs_response((domain.issue(req.csr, start=NOW + ahead),))
    assert isinstance(run(EST.enroll(req, TLS13, TRUSTED), answer), Issued)


def test_a_skew_is_granted_to_the_new_certificate_only_at_its_beginning(domain: Domain) -> None:
    """Judged at its own beginning, a certificate whose issuer has ended by then is still refused."""
    soon = NOW + timedelta(seconds=30)
    ending = authority("Ending", end=soon)
    req = replace(domain.request(), anchors=(ending.certificate,), intermediates=())
    answer = certs_response((domain.issue(req.csr, ending, start=soon + timedelta(seconds=1)),))
    with pytest.raises(TrustError, match=r"^chain\.expired"):
        run(EST.enroll(req, TLS13, TRUSTED), answer)


def test_a_validity_that_is_an_instant(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der, start=NOW, end=NOW),))
    assert fault(error) == (RemoteProtocolError, "est.validity")


def test_a_usage_that_is_not_ours(domain: Domain) -> None:
    error = judged(domain, lambda der: (domain.issue(der, usage=ExtendedKeyUsageOID.CODE_SIGNING),))
    assert fault(error) == (TrustError, "chain.usage")


@pytest.mark.parametrize("change", ["subject", "san"])
def test_other_names_where_the_policy_is_exact(domain: Domain, change: str) -> None:
    est = EstProtocol(initial_names=NamePolicy.EXACT)
    other = {"subject": name("someone")} if change == "subject" else {"san": (x509.DNSName("x.example"),)}
    error = judged(domain, lambda der: (domain.issue(der, **other),), est=est)
    assert fault(error) == (TrustError, "est.names")
    req = domain.request()
    kept = certs_response((domain.issue(req.csr),))
    assert isinstance(run(est.enroll(req, TLS13, TRUSTED), kept), Issued)


@pytest.mark.parametrize("change", ["subject", "san"])
def test_a_renewal_under_another_name(domain: Domain, change: str) -> None:
    req, _ = domain.renewal()
    other = {"subject": name("someone")} if change == "subject" else {"san": (x509.DNSName("x.example"),)}
    with pytest.raises(TrustError, match=r"^est\.names"):
        run(EST.enroll(req, TLS13, TRUSTED), certs_response((domain.issue(req.csr, **other),)))


def test_a_renewal_answered_with_the_old_certificate(domain: Domain) -> None:
    req, current = domain.renewal(Purpose.RENEW)
    with pytest.raises(RemoteProtocolError, match=r"^est\.not-renewed"):
        run(EST.enroll(req, TLS13, TRUSTED), certs_response((current,)))


# --- the message


def test_another_content_type(domain: Domain) -> None:
    req = domain.request()
    body = certs_response((domain.issue(req.csr),)).body
    for kind in ("application/pkcs10", "text/html", "application/pkcs7-mime-x", ""):
        with pytest.raises(RemoteProtocolError, match=r"^est\.content-type"):
            run(EST.enroll(req, TLS13, TRUSTED), HttpResponse(200, (("Content-Type", kind),), body))
    with pytest.raises(RemoteProtocolError, match=r"^est\.content-type"):
        run(EST.enroll(req, TLS13, TRUSTED), HttpResponse(200, (), body))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda good: b"", "est.body-empty"),
        (lambda good: good.rstrip()[:-1], "est.body-base64"),
        (lambda good: good + b"<!-- cached -->", "est.body-base64"),
        (messages.decode_body, "est.body-base64"),
        (lambda good: encode_body(messages.decode_body(good)[:-40]), "cms."),
        (lambda good: encode_body(messages.decode_body(good) + b"\x00"), "cms."),
        (lambda good: encode_body(b"not DER"), "cms."),
        (lambda good: encode_body(b"\x30\x00"), "cms."),
    ],
    ids=[
        "empty",
        "truncated base64",
        "trailing text",
        "raw DER",
        "truncated DER",
        "trailing octet",
        "text",
        "SEQ",
    ],
)
def test_a_spoilt_body(domain: Domain, spoil: Callable[[bytes], bytes], code: str) -> None:
    req = domain.request()
    good = certs_response((domain.issue(req.csr), domain.issuing.certificate)).body
    error = refused(domain, HttpResponse(200, (PKCS7,), spoil(good)))
    assert isinstance(error, RemoteProtocolError)
    assert error.code.startswith(code)


def test_a_bare_certificate_instead_of_a_message(domain: Domain) -> None:
    der = domain.issue(domain.request().csr).public_bytes(Encoding.DER)
    assert refused(domain, HttpResponse(200, (PKCS7,), encode_body(der))).code.startswith("cms.")


def test_a_body_beyond_the_limit(domain: Domain) -> None:
    est = EstProtocol(limits=EstLimits(body=500))
    assert refused(domain, HttpResponse(200, (PKCS7,), bytes(501)), est=est).code == "est.body-size"
    assert refused(domain, HttpResponse(400, (), bytes(501)), est=est).code == "est.body-size"


@pytest.mark.parametrize("status", [100, 201, 204, 206, 300, 304, 305, 408, 429, 500, 502, 503, 504, 599])
def test_statuses_that_mean_try_again(domain: Domain, status: int) -> None:
    error = refused(domain, text_response(status, "later"))
    assert fault(error) == (RemoteProtocolError, "est.unavailable")
    assert error.retry is Retry.BACKOFF
    assert f"HTTP {status}" in error.detail


# --- redirects


def redirect(location: str | None, status: int = 307) -> HttpResponse:
    return HttpResponse(status, () if location is None else (("Location", location),))


def test_a_redirect_loop_ends(domain: Domain) -> None:
    error = refused(domain, *[redirect("/.well-known/est/simpleenroll")] * 4)
    assert fault(error) == (RemoteProtocolError, "est.redirects")


def test_a_redirect_that_would_drop_the_request(domain: Domain) -> None:
    assert refused(domain, redirect("/elsewhere", 303)).code == "est.redirect-method"


@pytest.mark.parametrize(
    "location", [None, "", "http://est.example:8443/", "https://u@est.example/", "file:///x"]
)
def test_a_redirect_to_nowhere_safe(domain: Domain, location: str | None) -> None:
    assert refused(domain, redirect(location)).code == "http.location"


# --- passwords


def enrolled_with_password(domain: Domain, *answers: HttpResponse) -> tuple[object, list[HttpRequest]]:
    return run_recorded(PASSWORD.enroll(domain.request(), TLS13, TRUSTED), *answers)


@pytest.mark.parametrize("challenge", [BASIC, DIGEST], ids=["basic", "digest"])
def test_a_password_that_is_refused_is_not_sent_again(domain: Domain, challenge: HttpResponse) -> None:
    outcome, sent = enrolled_with_password(domain, challenge, challenge)
    assert outcome == Rejected("est.unauthorized", "HTTP 401", estranged=True)
    assert len(sent) == 2


def test_a_nonce_is_stale_only_once(domain: Domain) -> None:
    outcome, sent = enrolled_with_password(domain, DIGEST, STALE, STALE)
    assert outcome == Rejected("est.unauthorized", "HTTP 401", estranged=True)
    assert len(sent) == 3


def test_a_challenge_and_a_redirect_in_turn_end(domain: Domain) -> None:
    outcome, sent = enrolled_with_password(domain, BASIC, redirect("/a"), BASIC)
    assert outcome == Rejected("est.unauthorized", "HTTP 401", estranged=True)
    assert len(sent) == 3


@pytest.mark.parametrize(
    "value",
    ["Negotiate", 'Bearer realm="x"', 'Digest realm="x", nonce="n", algorithm=SHA-512-256'],
    ids=["negotiate", "bearer", "digest"],
)
def test_a_scheme_that_we_do_not_have(domain: Domain, value: str) -> None:
    outcome, sent = enrolled_with_password(domain, HttpResponse(401, (("WWW-Authenticate", value),)))
    assert outcome == Rejected("est.unauthorized", "HTTP 401", estranged=True)
    assert len(sent) == 1


def test_an_unreadable_challenge(domain: Domain) -> None:
    for value in ('Basic realm="open', 'Digest realm="x", nonce="n", qop="auth-int"'):
        with pytest.raises(RemoteProtocolError, match=r"^http\.challenge"):
            enrolled_with_password(domain, HttpResponse(401, (("WWW-Authenticate", value),)))


def test_a_password_never_goes_to_a_server_without_proof() -> None:
    session = Session(PROVISIONAL, PASSWORD.credentials, ZEROS, EstLimits())
    exchange = session.ask(HttpRequest("GET", "/"))
    next(exchange)
    with pytest.raises(LocalProtocolError, match=r"^est\.not-authenticated"):
        exchange.send(BASIC)


def test_a_password_does_not_follow_to_another_origin(domain: Domain) -> None:
    _, sent = enrolled_with_password(domain, BASIC, redirect("https://other.example/"))
    assert len(sent) == 2
    assert all(r.target.startswith("/.well-known/est/") for r in sent)


# --- discovery


def discovered(*answers: HttpResponse) -> HoldfastError:
    with pytest.raises(HoldfastError) as caught:
        run(EST.discover(TLS13, TRUSTED), *answers)
    return caught.value


def test_ca_certificates_without_a_root(domain: Domain) -> None:
    leaf = domain.issue(domain.request().csr)
    for chain in ((domain.issuing.certificate,), (leaf,), (leaf, domain.issuing.certificate)):
        assert fault(discovered(certs_response(chain))) == (RemoteProtocolError, "est.no-root")


def test_a_self_signed_certificate_that_is_no_ca_is_no_root(domain: Domain) -> None:
    key = new_key()
    lone = certificate(key.public_key(), name("lone"), name("lone"), key)
    assert discovered(certs_response((lone,))).code == "est.no-root"


def test_a_root_that_only_claims_to_be_self_signed(domain: Domain) -> None:
    forged = certificate(new_key().public_key(), name("Root"), name("Root"), new_key(), ca=True)
    assert discovered(certs_response((forged,))).code == "est.no-root"


def test_too_many_ca_certificates(domain: Domain) -> None:
    crowd = tuple(authority(f"CA {n}").certificate for n in range(17))
    assert discovered(certs_response(crowd)).code == "est.too-many-certificates"


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "est.unsupported"), (501, "est.unsupported"), (401, "est.refused"), (403, "est.refused"),
     (202, "est.unavailable"), (204, "est.unavailable"), (500, "est.unavailable"), (503, "est.unavailable")],
)  # fmt: skip
def test_ca_certificates_refused(status: int, code: str) -> None:
    error = discovered(text_response(status, "no"))
    assert fault(error) == (RemoteProtocolError, code)
    assert "cacerts" in error.detail


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "est.refused"), (403, "est.refused"), (500, "est.unavailable"), (202, "est.unavailable")],
)
def test_wishes_refused(domain: Domain, status: int, code: str) -> None:
    error = discovered(certs_response((domain.root.certificate,)), text_response(status, "no"))
    assert fault(error) == (RemoteProtocolError, code)
    assert "csrattrs" in error.detail


@pytest.mark.parametrize(
    ("status", "header", "wanted"),
    [
        (503, "600", timedelta(minutes=10)),
        (429, "600", timedelta(minutes=10)),
        (500, "99999999", timedelta(days=4)),
        (503, "soon", None),
        (403, "600", None),
    ],
)
def test_a_busy_server_says_when_to_come_back(
    domain: Domain, status: int, header: str, wanted: timedelta | None
) -> None:
    error = discovered(HttpResponse(status, (("Retry-After", header),)))
    assert isinstance(error, RemoteProtocolError)
    assert (error.busy, error.unsupported, error.retry_after) == (status != 403, False, wanted)


@pytest.mark.parametrize(
    "body", [b"MAA", b"not base64!", encode_body(b"\x30\x02\x05\x00"), encode_body(b"junk")]
)
def test_spoilt_wishes(domain: Domain, body: bytes) -> None:
    wishes = HttpResponse(200, (("Content-Type", "application/csrattrs"),), body)
    error = discovered(certs_response((domain.root.certificate,)), wishes)
    assert isinstance(error, RemoteProtocolError)
    assert error.code in ("est.csrattrs", "est.body-base64")


def test_ca_certificates_of_another_type(domain: Domain) -> None:
    body = certs_response((domain.root.certificate,)).body
    assert discovered(HttpResponse(200, (("Content-Type", "text/plain"),), body)).code == "est.content-type"
