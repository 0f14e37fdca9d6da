"""The EST client with servers that keep the rules: discovery, enrollment, waiting, redirects, passwords."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.wire import csr, oids
from holdfast.wire.authorities import split_authorities
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.est import messages
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.request import link_challenge
from holdfast.wire.est.session import EstLimits
from holdfast.wire.http import HttpCredentials, format_http_date
from holdfast.wire.issued import NamePolicy
from holdfast.wire.model import (
    CsrTemplate,
    EnrollmentProtocol,
    HttpRequest,
    HttpResponse,
    Issued,
    KeyAlgorithm,
    Moved,
    Offer,
    Pending,
    Purpose,
    Rejected,
)
from wire.est_parties import (
    NOW,
    ORIGIN,
    PROVISIONAL,
    TLS12,
    TLS13,
    TRUSTED,
    UNKNOWN,
    ZEROS,
    Domain,
    authority,
    name,
    new_key,
    run,
    run_recorded,
)

EST: EnrollmentProtocol = EstProtocol()
PASSWORD = EstProtocol(credentials=HttpCredentials("gateway", "s3cret-pass"), random=ZEROS)
BASIC = ("WWW-Authenticate", 'Basic realm="est"')
DIGEST = ("WWW-Authenticate", 'Digest realm="est", nonce="n1", qop="auth", algorithm=SHA-256')
STALE = ("WWW-Authenticate", 'Digest realm="est", nonce="n2", qop="auth", algorithm=SHA-256, stale=true')


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain()


def authorization(request: HttpRequest) -> str | None:
    return next((value for header, value in request.headers if header == "Authorization"), None)


def redirect(location: str, status: int = 307) -> HttpResponse:
    return HttpResponse(status, (("Location", location),))


# --- discovery


def test_discovery_gives_authorities_and_wishes(domain: Domain) -> None:
    template = CsrTemplate(key=KeyAlgorithm.P384, link_tls_unique=True)
    chain = (domain.issuing.certificate, domain.root.certificate, domain.issuing.certificate)
    offer, sent = run_recorded(
        EstProtocol("plant").discover(TLS13, TRUSTED),
        messages.certs_response(chain),
        messages.csrattrs_response(template),
    )
    offer_wishes = messages.decode_body(messages.csrattrs_response(template).body)
    assert offer == Offer((domain.root.certificate, domain.issuing.certificate), template, offer_wishes)
    assert [(r.method, r.target) for r in sent] == [
        ("GET", "/.well-known/est/plant/cacerts"),
        ("GET", "/.well-known/est/plant/csrattrs"),
    ]


@pytest.mark.parametrize("status", [204, 404, 405, 501])
def test_a_server_without_wishes(domain: Domain, status: int) -> None:
    certs = messages.certs_response((domain.root.certificate,))
    offer = run(EST.discover(TLS13, TRUSTED), certs, HttpResponse(status))
    assert offer.template == CsrTemplate()


def test_at_a_change_of_root_the_newest_comes_first(domain: Domain) -> None:
    old = authority("Domain Root", end=NOW + timedelta(days=30))
    new = authority("Domain Root", end=NOW + timedelta(days=9000))
    linked = authority("Domain Root", new)  # signed by the new key: no root of its own
    device = domain.issue(domain.request().csr)
    chain = (old.certificate, linked.certificate, new.certificate, device, old.certificate)
    offer = run(EST.discover(TLS13, TRUSTED), messages.certs_response(chain), HttpResponse(204))
    assert offer.ca_certificates == (new.certificate, old.certificate, linked.certificate)
    parts = split_authorities(offer.ca_certificates)
    assert parts.roots == (new.certificate, old.certificate)
    assert parts.intermediates == (linked.certificate,)


@pytest.mark.parametrize("place", [0, 1])
def test_discovery_at_another_origin_is_the_callers_decision(domain: Domain, place: int) -> None:
    answers = [messages.certs_response((domain.root.certificate,)), redirect("https://other.example/est#x")]
    assert run(EST.discover(TLS13, TRUSTED), *answers[1 - place :]) == Moved("https://other.example/est")


# --- enrollment


def test_enrollment(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    issued, sent = run_recorded(EST.enroll(req, TLS13, TRUSTED), messages.certs_response((leaf,)))
    assert issued == Issued((leaf, domain.issuing.certificate), req.anchors)
    assert sent == [messages.enroll_request("simpleenroll", req.csr)]


def test_ca_certificates_around_the_issued_one_are_tolerated(domain: Domain) -> None:
    req = replace(domain.request(), intermediates=())
    leaf = domain.issue(req.csr)
    chain = (domain.root.certificate, leaf, domain.issuing.certificate, leaf)
    issued = run(EST.enroll(req, TLS13, TRUSTED), messages.certs_response(chain))
    assert issued.chain == (leaf, domain.issuing.certificate)


def test_the_first_names_are_the_servers_choice_unless_told_otherwise(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr, subject=name("gateway-0007"), san=(x509.DNSName("seven.example"),))
    assert run(EST.enroll(req, TLS13, TRUSTED), messages.certs_response((leaf,))).chain[0] == leaf


@pytest.mark.parametrize("purpose", [Purpose.RENEW, Purpose.REKEY])
def test_renewal(domain: Domain, purpose: Purpose) -> None:
    req, _ = domain.renewal(purpose)
    leaf = domain.issue(req.csr)
    issued, sent = run_recorded(EST.enroll(req, TLS13, TRUSTED), messages.certs_response((leaf,)))
    assert issued.chain[0] == leaf
    assert sent[0].target == "/.well-known/est/simplereenroll"


def test_a_renewal_may_ask_for_other_names(domain: Domain) -> None:
    req, _ = domain.renewal()
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("gateway-8"))
    builder = builder.add_attribute(x509.ObjectIdentifier(oids.CHANGE_SUBJECT_NAME), b"\x30\x00")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    der = builder.sign(req.key, hashes.SHA256()).public_bytes(Encoding.DER)
    req = replace(req, csr=der)
    leaf = domain.issue(der, subject=name("gateway-9"))
    assert run(EST.enroll(req, TLS13, TRUSTED), messages.certs_response((leaf,))).chain[0] == leaf


def test_a_renewal_may_be_renamed_by_policy(domain: Domain) -> None:
    req, _ = domain.renewal()
    leaf = domain.issue(req.csr, san=(x509.DNSName("seven.example"),))
    est = EstProtocol(renewal_names=NamePolicy.SERVER_DECIDES)
    assert run(est.enroll(req, TLS13, TRUSTED), messages.certs_response((leaf,))).chain[0] == leaf


def test_without_a_clock_a_certificate_from_the_future_is_accepted(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    assert leaf.not_valid_before_utc > UNKNOWN.now
    assert run(EST.enroll(req, TLS13, UNKNOWN), messages.certs_response((leaf,))).chain[0] == leaf


# --- waiting


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ((), timedelta(minutes=5)),
        ((("Retry-After", "nonsense"),), timedelta(minutes=5)),
        ((("Retry-After", "600"),), timedelta(minutes=10)),
        ((("Retry-After", "0"),), timedelta(seconds=1)),
        ((("Retry-After", "99999999"),), timedelta(days=4)),
        ((("Retry-After", format_http_date(NOW + timedelta(hours=1))),), timedelta(hours=1)),
        ((("Retry-After", format_http_date(NOW - timedelta(hours=1))),), timedelta(seconds=1)),
    ],
    ids=["absent", "unreadable", "seconds", "zero", "ages", "date", "past"],
)
def test_pending(domain: Domain, headers: tuple[tuple[str, str], ...], wait: timedelta) -> None:
    pending = run(EST.enroll(domain.request(), TLS13, TRUSTED), HttpResponse(202, headers))
    assert isinstance(pending, Pending)
    assert pending.retry_after == wait


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_that_names_a_time_is_waited_for(domain: Domain, status: int) -> None:
    answer = HttpResponse(status, (("Retry-After", "30"),))
    pending = run(EST.enroll(domain.request(), TLS13, TRUSTED), answer)
    assert pending.retry_after == timedelta(seconds=30)


def test_after_waiting_the_identical_request_is_sent(domain: Domain) -> None:
    req = domain.request()
    pending, first = run_recorded(EST.enroll(req, TLS13, TRUSTED), HttpResponse(202))
    later = replace(TLS13, origin="https://spare.example")
    leaf = domain.issue(req.csr)
    issued, second = run_recorded(
        EST.resume(req, pending.resume, later, TRUSTED), messages.certs_response((leaf,))
    )
    assert first == second
    assert issued.chain[0] == leaf
    with pytest.raises(LocalProtocolError, match=r"^est\.resume"):
        run(EST.resume(domain.request(), pending.resume, TLS13, TRUSTED))
    with pytest.raises(LocalProtocolError, match=r"^est\.resume"):
        run(EST.resume(req, b"garbage", TLS13, TRUSTED))


def test_waiting_may_go_on(domain: Domain) -> None:
    req = domain.request()
    pending = run(EST.enroll(req, TLS13, TRUSTED), HttpResponse(202))
    assert run(EST.resume(req, pending.resume, TLS13, TRUSTED), HttpResponse(202)) == pending


# --- refusals


@pytest.mark.parametrize(
    ("status", "code", "unsupported"),
    [
        (400, "est.rejected", False),
        (401, "est.unauthorized", False),
        (403, "est.unauthorized", False),
        (404, "est.unsupported", True),
        (405, "est.unsupported", True),
        (415, "est.rejected", False),
        (501, "est.unsupported", True),
    ],
)
def test_refusals_are_outcomes(domain: Domain, status: int, code: str, unsupported: bool) -> None:
    answer = messages.text_response(status, "go\x07away\n")
    rejected = run(EST.enroll(domain.request(), TLS13, TRUSTED), answer)
    estranged = status in (401, 403)
    assert rejected == Rejected(code, f"HTTP {status}: go away", unsupported, estranged)


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_in_the_origin_is_followed_with_method_and_body(domain: Domain, status: int) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    answers = (redirect("/est2/simpleenroll", status), redirect(f"{ORIGIN}/est3", status))
    issued, sent = run_recorded(EST.enroll(req, TLS13, TRUSTED), *answers, messages.certs_response((leaf,)))
    assert issued.chain[0] == leaf
    assert [r.target for r in sent] == ["/.well-known/est/simpleenroll", "/est2/simpleenroll", "/est3"]
    assert {(r.method, r.body, r.headers) for r in sent} == {("POST", sent[0].body, sent[0].headers)}


def test_see_other_is_followed_by_a_get(domain: Domain) -> None:
    certs = messages.certs_response((domain.root.certificate,))
    offer, sent = run_recorded(EST.discover(TLS13, TRUSTED), redirect("/ca", 303), certs, HttpResponse(204))
    assert offer.ca_certificates == (domain.root.certificate,)
    assert (sent[1].method, sent[1].target) == ("GET", "/ca")


def test_another_origin_is_the_callers_decision(domain: Domain) -> None:
    answer = redirect("https://est.example/.well-known/est/simpleenroll")
    moved = run(EST.enroll(domain.request(), TLS13, TRUSTED), answer)
    assert moved == Moved("https://est.example/.well-known/est/simpleenroll")


# --- passwords


def test_basic_is_answered_once_asked(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    issued, sent = run_recorded(
        PASSWORD.enroll(req, TLS13, TRUSTED),
        HttpResponse(401, (BASIC,)),
        messages.certs_response((leaf,)),
    )
    assert issued.chain[0] == leaf
    assert authorization(sent[0]) is None
    expected = base64.b64encode(b"gateway:s3cret-pass").decode()
    assert authorization(sent[1]) == f"Basic {expected}"
    assert sent[1].body == sent[0].body


def test_digest_is_preferred_and_follows_a_redirect(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    _, sent = run_recorded(
        PASSWORD.enroll(req, TLS13, TRUSTED),
        HttpResponse(401, (BASIC, DIGEST)),
        redirect("/elsewhere"),
        messages.certs_response((leaf,)),
    )
    first, second = authorization(sent[1]), authorization(sent[2])
    assert first is not None
    assert second is not None
    assert 'uri="/.well-known/est/simpleenroll"' in first
    assert "nc=00000001" in first
    assert f'cnonce="{"00" * 16}"' in first
    assert 'uri="/elsewhere"' in second
    assert "nc=00000002" in second
    assert "s3cret-pass" not in first + second


def test_a_stale_nonce_is_answered_once_more(domain: Domain) -> None:
    req = domain.request()
    leaf = domain.issue(req.csr)
    _, sent = run_recorded(
        PASSWORD.enroll(req, TLS13, TRUSTED),
        HttpResponse(401, (DIGEST,)),
        HttpResponse(401, (STALE,)),
        messages.certs_response((leaf,)),
    )
    last = authorization(sent[2])
    assert last is not None
    assert 'nonce="n2"' in last
    assert "nc=00000001" in last


def test_discovery_answers_a_challenge_too(domain: Domain) -> None:
    _, sent = run_recorded(
        PASSWORD.discover(TLS13, TRUSTED),
        messages.certs_response((domain.root.certificate,)),
        HttpResponse(401, (DIGEST,)),
        HttpResponse(204),
    )
    assert [authorization(r) is not None for r in sent] == [False, False, True]


# --- binding to the connection (RFC 7030 §3.5)


def test_a_bound_request_is_sent_on_its_own_link(domain: Domain) -> None:
    challenge = link_challenge(TLS12)
    assert base64.b64decode(challenge) == TLS12.tls_unique
    req = replace(domain.request(challenge=challenge), template=CsrTemplate(link_tls_unique=True))
    assert csr.challenge_password(csr.parse(req.csr)) == challenge
    leaf = domain.issue(req.csr)
    exchange = EstProtocol().enroll(req, TLS12, TRUSTED)
    assert run(exchange, messages.certs_response((leaf,))).chain[0] == leaf


# --- our own mistakes never leave the device


def test_nothing_is_said_to_a_server_that_is_not_authenticated(domain: Domain) -> None:
    for exchange in (
        PASSWORD.discover(PROVISIONAL, TRUSTED),
        PASSWORD.enroll(domain.request(), PROVISIONAL, TRUSTED),
    ):
        with pytest.raises(LocalProtocolError, match=r"^est\.not-authenticated"):
            next(exchange)


def test_a_bound_request_on_another_link_is_stale(domain: Domain) -> None:
    req = domain.request(challenge=link_challenge(TLS12))
    other = replace(TLS12, tls_unique=b"another link")
    with pytest.raises(LocalProtocolError, match=r"^est\.link-stale"):
        next(EST.enroll(req, other, TRUSTED))


def test_binding_needs_tls_1_2(domain: Domain) -> None:
    req = domain.request(challenge=link_challenge(TLS12))
    with pytest.raises(LocalProtocolError, match=r"^est\.link-needs-tls12.*TLS 1\.2"):
        next(EST.enroll(req, TLS13, TRUSTED))
    with pytest.raises(LocalProtocolError, match=r"^est\.link-needs-tls12"):
        link_challenge(TLS13)


def test_a_demanded_binding_may_not_be_forgotten(domain: Domain) -> None:
    req = replace(domain.request(), template=CsrTemplate(link_tls_unique=True))
    with pytest.raises(LocalProtocolError, match=r"^est\.link-missing"):
        next(EstProtocol().enroll(req, TLS12, TRUSTED))


def test_a_request_must_be_for_its_key(domain: Domain) -> None:
    with pytest.raises(LocalProtocolError, match=r"^est\.csr-key"):
        next(EST.enroll(replace(domain.request(), key=new_key()), TLS13, TRUSTED))


@pytest.mark.parametrize("flip", [0, -1])
def test_a_broken_request_is_not_sent(domain: Domain, flip: int) -> None:
    der = bytearray(domain.request().csr)
    der[flip] ^= 1
    with pytest.raises(LocalProtocolError, match=r"^est\.csr:"):
        next(EST.enroll(replace(domain.request(), csr=bytes(der)), TLS13, TRUSTED))


@pytest.mark.parametrize(("made", "said"), [(Purpose.RENEW, Purpose.REKEY), (Purpose.REKEY, Purpose.RENEW)])
def test_renew_keeps_the_key_and_rekey_does_not(domain: Domain, made: Purpose, said: Purpose) -> None:
    req, _ = domain.renewal(made)
    with pytest.raises(LocalProtocolError, match=r"^est\.csr-key"):
        next(EST.enroll(replace(req, purpose=said), TLS13, TRUSTED))


def test_a_renewal_needs_what_it_renews_and_its_names(domain: Domain) -> None:
    req, _ = domain.renewal()
    with pytest.raises(LocalProtocolError, match=r"^est\.no-current"):
        next(EST.enroll(replace(req, current=None), TLS13, TRUSTED))
    renamed, _ = domain.renewal(subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway-8")]))
    with pytest.raises(LocalProtocolError, match=r"^est\.reenroll-names"):
        next(EST.enroll(renamed, TLS13, TRUSTED))
    without_san = replace(req, csr=csr.build(req.key, req.subject))
    with pytest.raises(LocalProtocolError, match=r"^est\.reenroll-names"):
        next(EST.enroll(without_san, TLS13, TRUSTED))


def test_credentials_come_with_randomness_and_labels_are_plain() -> None:
    with pytest.raises(LocalProtocolError, match=r"^est\.no-random"):
        EstProtocol(credentials=HttpCredentials("u", "p"))
    with pytest.raises(LocalProtocolError, match=r"^est\.label"):
        EstProtocol("a/b")
    assert "s3cret-pass" not in repr(PASSWORD)


def test_keys_made_by_a_server_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match=r"^est\.serverkeygen"):
        EstProtocol().serverkeygen()


def test_limits_are_the_callers(domain: Domain) -> None:
    est = EstProtocol(limits=EstLimits(default_wait=timedelta(seconds=9)))
    assert run(est.enroll(domain.request(), TLS13, TRUSTED), HttpResponse(202)).retry_after == timedelta(
        seconds=9
    )
