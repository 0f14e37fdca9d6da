"""The ACME client, whole orders at the simulator, and each rule that a server can break."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.wire.acme import jose
from holdfast.wire.acme.account import ExternalAccount, change_key, deactivate, enter
from holdfast.wire.acme.ari import ask, certificate_id
from holdfast.wire.acme.authorize import ChallengeFailed
from holdfast.wire.acme.client import identifiers_of, revoke
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.acme.session import AcmeLimits, AcmeProblem, Session
from holdfast.wire.errors import (
    ConfigError,
    HoldfastError,
    LocalProtocolError,
    RemoteProtocolError,
    TrustError,
)
from holdfast.wire.model import HttpRequest, HttpResponse, Issued, Pending, Rejected
from wire.acme_parties import DNS, MOMENT, ORIGIN, TLS, Case, new_key

OTHER = Identifier("dns", "other.example")


def issued(outcome: object) -> Issued:
    assert isinstance(outcome, Issued), outcome
    return outcome


def refused(case: Case, code: str, kind: type[HoldfastError] = RemoteProtocolError) -> None:
    with pytest.raises(kind) as caught:
        case.enroll()
    assert caught.value.code == code


# --- orders that succeed


@pytest.mark.parametrize("kind", ["http-01", "dns-01"])
def test_a_name_is_proved_and_a_certificate_comes(kind: str) -> None:
    case = Case(prefer=(kind,))
    chain = issued(case.enroll()).chain
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [DNS.value]
    assert case.board.shown == {}
    assert case.board.withdrawn == 1


def test_several_names_are_each_proved() -> None:
    case = Case(identifiers=(DNS, OTHER))
    assert len(case.world.acme.authorizations) == 0
    issued(case.enroll())
    assert {a.status for a in case.world.acme.authorizations.values()} == {"valid"}
    assert len(case.world.acme.authorizations) == 2


@pytest.mark.parametrize(
    "account_key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["p384", "rsa2048"],
)
def test_account_keys_of_other_kinds(account_key: Any) -> None:
    issued(Case(account_key=account_key).enroll())


def test_the_order_is_durable_before_anything_is_done_with_it() -> None:
    """RFC 8555 orders cannot be found again without their URL."""
    case = Case()
    outcome = case.drive(case.protocol.enroll(case.request, TLS, MOMENT))
    assert isinstance(outcome, Pending)
    assert outcome.retry_after == timedelta(0)
    (order,) = case.world.acme.orders.values()
    assert order.url in outcome.resume.decode()
    assert order.status == "pending"
    assert not any("/challenge/" in r.target for r in case.sent)


def test_a_power_cut_anywhere_goes_on_with_the_same_order() -> None:
    """The same token is used again after each request of a leg was cut off."""
    case = Case()
    case.world.acme.policy = replace(case.world.acme.policy, polls=2)
    request, protocol = case.request, case.protocol
    outcome = case.drive(protocol.enroll(request, TLS, MOMENT))
    token = outcome.resume
    for survives in range(1, 12):
        exchange = protocol.resume(request, token, TLS, MOMENT)
        outcome = None
        case.change = _cut_after(survives)
        with contextlib.suppress(ConnectionError):
            outcome = case.drive(exchange)
        exchange.close()
        if isinstance(outcome, Issued):
            break
        if isinstance(outcome, Pending):
            assert outcome.resume == token
    case.change = lambda _, answer: answer
    for _ in range(6):
        if isinstance(outcome, Issued):
            break
        outcome = case.drive(protocol.resume(request, token, TLS, MOMENT))
    issued(outcome)
    assert len(case.world.acme.orders) == 1
    assert len(case.world.acme.chains) == 1


def _cut_after(requests: int) -> Any:
    left = [requests]

    def change(_: HttpRequest, answer: HttpResponse) -> HttpResponse:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError
        return answer

    return change


def test_a_server_that_works_for_a_while_is_polled_as_it_wishes() -> None:
    case = Case()
    case.world.acme.policy = replace(case.world.acme.policy, polls=3, retry_after=7)
    request, protocol = case.request, case.protocol
    outcome = case.drive(protocol.enroll(request, TLS, MOMENT))
    waits = []
    while isinstance(outcome, Pending):
        outcome = case.drive(protocol.resume(request, outcome.resume, TLS, MOMENT))
        if isinstance(outcome, Pending):
            waits.append(outcome.retry_after)
    issued(outcome)
    assert waits == [timedelta(seconds=7)] * 3


def test_an_order_that_is_stuck_keeps_being_asked_for() -> None:
    case = Case("acme-order:stuck")
    outcome = case.enroll(legs=5)
    assert isinstance(outcome, Pending)


@pytest.mark.parametrize("times", [1, 4])
def test_refused_nonces_are_replaced(times: int) -> None:
    issued(Case(f"acme-new-order:bad-nonce:{times}").enroll())


def test_a_server_that_refuses_every_nonce_is_given_up() -> None:
    case = Case("acme-new-order:bad-nonce")
    refused(case, "acme.nonces")
    assert sum(r.target.endswith("new-order") for r in case.sent) == AcmeLimits().nonces


# --- what a server can break


def test_a_certificate_for_another_key() -> None:
    refused(Case("acme-finalize:key-mismatch"), "acme.key-mismatch", TrustError)


def test_a_certificate_of_another_ca() -> None:
    case = Case("acme-finalize:foreign-ca")
    with pytest.raises(TrustError, match=r"^chain\."):
        case.enroll()


def test_a_certificate_for_other_names() -> None:
    refused(Case("acme-finalize:other-names"), "acme.names", TrustError)


def test_a_challenge_that_shows_nothing_is_a_failed_challenge() -> None:
    case = Case()
    case.world.acme.probe = lambda _: None
    with pytest.raises(ChallengeFailed) as caught:
        case.enroll()
    assert caught.value.code == "acme.challenge-failed"
    assert "connection" in caught.value.detail


def test_a_failed_challenge_is_seen_where_the_authorization_stays_pending() -> None:
    """As step-ca leaves it: else the order would be asked for until it ends."""
    case = Case()
    case.world.acme.probe = lambda _: None

    def change(request: HttpRequest, answer: HttpResponse) -> HttpResponse:
        if "/authz/" not in request.target:
            return answer
        value = json.loads(answer.body)
        failed = value["status"] == "invalid"
        value["status"] = "pending" if failed else value["status"]
        for challenge in value["challenges"]:
            challenge["status"] = "invalid" if failed else challenge["status"]
        return replace(answer, body=json.dumps(value).encode())

    case.change = change
    with pytest.raises(ChallengeFailed):
        case.enroll()


def test_no_challenge_that_we_can_meet() -> None:
    case = Case(prefer=("tls-alpn-01",), solver=None)
    refused(case, "acme.solver", LocalProtocolError)
    case = Case(prefer=("device-attest-01",))
    refused(case, "acme.no-challenge")


BODIES = {
    "not json": (b"{", "acme.syntax"),
    "an array": (b"[]", "acme.syntax"),
    "a missing member": (b'{"status": "pending"}', "acme.syntax"),
    "a wrong type": (b'{"status": 3, "authorizations": [], "finalize": ""}', "acme.syntax"),
    "an unknown status": (b'{"status": "odd", "authorizations": ["x"], "finalize": ""}', "acme.syntax"),
    "no authorization": (b'{"status": "pending", "authorizations": [], "finalize": ""}', "acme.order"),
    "deep nesting": (b"[" * 100_000, "acme.syntax"),
    "too much": (b'"' + b"x" * 200_000 + b'"', "acme.too-large"),
}


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES.keys())
def test_an_order_that_cannot_be_read(body: bytes, code: str) -> None:
    case = Case()
    case.change = lambda r, a: replace(a, body=body) if r.target.endswith("new-order") else a
    refused(case, code)


def test_an_order_of_another_type() -> None:
    case = Case()
    case.change = lambda r, a: (
        replace(a, headers=(*(h for h in a.headers if h[0] != "Content-Type"), ("Content-Type", "text/html")))
        if r.target.endswith("new-order")
        else a
    )
    refused(case, "acme.type")


@pytest.mark.parametrize(
    "url", ["https://elsewhere.example/acme/order/1", "http://acme.example:8443/x", "x" * 3000, ""]
)
def test_urls_that_lead_elsewhere_are_not_followed(url: str) -> None:
    """A signed request for another server's resource must not be made, nor our answers given to it."""
    case = Case()

    def elsewhere(request: HttpRequest, answer: HttpResponse) -> HttpResponse:
        if not request.target.endswith("new-order"):
            return answer
        return replace(
            answer, headers=(*(h for h in answer.headers if h[0] != "Location"), ("Location", url))
        )

    case.change = elsewhere
    with pytest.raises(RemoteProtocolError) as caught:
        case.enroll()
    assert caught.value.code in {"acme.url", "http.location"}


@pytest.mark.parametrize("token", ["../../etc/passwd", "a b", "<script>", "x" * 600])
def test_tokens_that_are_not_base64url_are_not_shown_to_anybody(token: str) -> None:
    case = Case()

    def change(request: HttpRequest, answer: HttpResponse) -> HttpResponse:
        if "/authz/" not in request.target:
            return answer
        value = json.loads(answer.body)
        for challenge in value["challenges"]:
            challenge["token"] = token
        return replace(answer, body=json.dumps(value).encode())

    case.change = change
    refused(case, "acme.token")
    assert case.board.shown == {}


def test_a_chain_of_another_type_or_without_end() -> None:
    for body, headers, code in (
        (b"", (("Content-Type", "text/plain"),), "acme.type"),
        (b"nothing", (("Content-Type", "application/pem-certificate-chain"),), "acme.chain"),
        (b"x" * (2 << 20), (("Content-Type", "application/pem-certificate-chain"),), "acme.too-large"),
    ):
        case = Case()
        case.change = lambda r, a, body=body, headers=headers: (  # type: ignore[misc]
            replace(a, body=body, headers=headers) if "/certificate/" in r.target else a
        )
        refused(case, code)


def test_no_nonce_at_all() -> None:
    case = Case()
    case.change = lambda _, a: replace(a, headers=tuple(h for h in a.headers if h[0] != "Replay-Nonce"))
    refused(case, "acme.nonce")


def test_a_connection_that_nobody_authenticated_is_not_used() -> None:
    case = Case()
    for tls in (None, replace(TLS, authenticated=False)):
        with pytest.raises(LocalProtocolError) as caught:
            case.drive(case.protocol.enroll(case.request, tls, MOMENT))
        assert caught.value.code == "acme.not-authenticated"
    assert case.sent == []


# --- outcomes of refusals


def problem(kind: str, status: int, *headers: tuple[str, str]) -> Any:
    body = json.dumps({"type": f"urn:ietf:params:acme:error:{kind}", "detail": "no"}).encode()
    answer = HttpResponse(status, (("Content-Type", "application/problem+json"), *headers), body)
    return lambda r, a: answer if r.target.endswith("new-order") else a


@pytest.mark.parametrize("kind", ["rejectedIdentifier", "unauthorized", "badCSR", "caa", "invalidProfile"])
def test_a_no_is_an_outcome(kind: str) -> None:
    case = Case()
    case.change = problem(kind, 403)
    outcome = case.enroll()
    assert isinstance(outcome, Rejected)
    assert not outcome.unsupported


def test_a_rate_limit_is_patience() -> None:
    case = Case()
    case.change = problem("rateLimited", 429, ("Retry-After", "90"))
    outcome = case.drive(case.protocol.enroll(case.request, TLS, MOMENT))
    assert outcome == Pending(timedelta(seconds=90), b"")
    case.change = lambda _, a: a
    again = case.drive(case.protocol.resume(case.request, outcome.resume, TLS, MOMENT))
    assert isinstance(again, Pending)
    assert again.resume


def test_a_server_that_fails_is_an_error_to_repeat() -> None:
    case = Case()
    case.change = problem("serverInternal", 500)
    with pytest.raises(AcmeProblem) as caught:
        case.enroll()
    assert caught.value.busy
    assert caught.value.code == "acme.server-internal"


def test_a_server_without_acme_is_unsupported() -> None:
    case = Case()
    case.change = lambda r, a: HttpResponse(404, (), b"nothing") if r.target.endswith("new-order") else a
    outcome = case.enroll()
    assert isinstance(outcome, Rejected)
    assert outcome.unsupported


def test_a_token_of_another_request_is_refused() -> None:
    case = Case()
    outcome = case.drive(case.protocol.enroll(case.request, TLS, MOMENT))
    for token in (outcome.resume, b"garbage"):
        other = Case()
        with pytest.raises(LocalProtocolError) as caught:
            other.drive(other.protocol.resume(other.request, token, TLS, MOMENT))
        assert caught.value.code == "acme.resume"


# --- accounts


def test_an_account_is_found_again_by_its_key() -> None:
    case = Case()
    assert case.session().kid == case.session().kid
    assert len(case.world.acme.accounts) == 1


def test_an_external_account_is_bound() -> None:
    case = Case()
    case.world.acme.policy = replace(case.world.acme.policy, external={"kid-1": b"m" * 32})
    with pytest.raises(RemoteProtocolError) as caught:
        case.drive(case.protocol.discover(TLS, MOMENT))
    assert caught.value.code == "acme.eab-required"
    for secret, status in ((b"n" * 32, "unauthorized"), (b"m" * 32, None)):
        session = Session(TLS, new_key(), AcmeLimits(), MOMENT)
        case.drive(session.open("/acme/directory"))
        binding = ExternalAccount("kid-1", secret)
        if status is None:
            case.drive(enter(session, external=binding))
        else:
            with pytest.raises(AcmeProblem) as refusal:
                case.drive(enter(session, external=binding))
            assert refusal.value.kind == status
    (account,) = case.world.acme.accounts.values()
    assert account.external == "kid-1"


def test_a_mac_key_that_is_no_base64url_is_said_without_showing_it() -> None:
    assert ExternalAccount.parse("k", jose.b64(b"secret") + "\n").secret == b"secret"
    with pytest.raises(ConfigError) as caught:
        ExternalAccount.parse("k", "not base64url, but s3cret!")
    assert "s3cret" not in str(caught.value)


def test_the_account_moves_to_a_new_key() -> None:
    case = Case()
    session = case.session()
    fresh = new_key()
    case.drive(change_key(session, fresh))
    case.drive(session.post(session.kid or "", None))
    (account,) = case.world.acme.accounts.values()
    assert account.key == fresh.public_key()
    old = Session(TLS, case.account_key, AcmeLimits(), MOMENT)
    case.drive(old.open("/acme/directory"))
    old.kid = session.kid
    with pytest.raises(AcmeProblem):
        case.drive(old.post(old.kid or "", None))


def test_a_deactivated_account_can_do_nothing_more() -> None:
    case = Case()
    case.drive(deactivate(case.session()))
    with pytest.raises(AcmeProblem):
        case.session()


# --- revocation and renewal information


def test_revocation_by_the_account_and_by_the_certificates_own_key() -> None:
    case = Case()
    leaf = issued(case.enroll()).chain[0]
    case.drive(revoke(case.session(), leaf, reason=1))
    assert case.world.acme.revoked == {leaf.serial_number: 1}
    case.drive(revoke(case.session(), leaf))  # again: harmless
    second = Case()
    leaf = issued(second.enroll()).chain[0]
    with pytest.raises(AcmeProblem):
        second.drive(revoke(second.session(new_key()), leaf))
    second.drive(revoke(second.session(second.key), leaf))
    assert leaf.serial_number in second.world.acme.revoked


def test_the_server_suggests_when_to_renew() -> None:
    case = Case()
    leaf = issued(case.enroll()).chain[0]
    session = case.session()
    suggestion = case.drive(ask(session, leaf))
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert suggestion.start == leaf.not_valid_before_utc + life * 0.6
    assert suggestion.end == leaf.not_valid_before_utc + life * 0.7
    assert suggestion.ask_again == timedelta(hours=6)


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [
        ("2026-11-05T00:00:00Z", "2026-11-05T00:00:00Z", "ari.window"),
        ("2026-11-06T00:00:00Z", "2026-11-05T00:00:00Z", "ari.window"),
        ("2026-11-05T00:00:00", "2026-11-06T00:00:00", "ari.window"),
        ("yesterday", "2026-11-06T00:00:00Z", "acme.syntax"),
    ],
)
def test_a_window_that_is_none(start: str, end: str, code: str) -> None:
    case = Case()
    leaf = issued(case.enroll()).chain[0]
    session = case.session()
    body = json.dumps({"suggestedWindow": {"start": start, "end": end}}).encode()
    case.change = lambda _, a: replace(a, body=body)
    with pytest.raises(RemoteProtocolError) as caught:
        case.drive(ask(session, leaf))
    assert caught.value.code == code


def test_the_example_certificate_has_the_example_identifier() -> None:
    """RFC 9773 appendix A: key identifier and serial of its example, a leading zero octet kept."""
    key = new_key()
    identifier = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
    aki = x509.AuthorityKeyIdentifier(identifier, None, None)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 0x87654321)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .add_extension(aki, critical=False)
        .sign(key, hashes.SHA256())
    )
    assert certificate_id(certificate) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_a_replaced_certificate_is_named_and_a_second_time_not() -> None:
    case = Case()
    leaf = issued(case.enroll()).chain[0]
    case.current = ((leaf,), case.key)
    case.key = new_key()
    issued(case.enroll())
    assert case.world.acme.replaced == {certificate_id(leaf)}
    case.key = new_key()
    issued(case.enroll())  # 409 alreadyReplaced: ordered without it


def test_profiles_are_asked_for_by_name() -> None:
    case = Case(profile="short")
    with pytest.raises(RemoteProtocolError) as caught:
        case.drive(case.protocol.discover(TLS, MOMENT))
    assert caught.value.code == "acme.profile"
    case.world.acme.policy = replace(case.world.acme.policy, profiles={"short": "six days"})
    case.drive(case.protocol.discover(TLS, MOMENT))
    issued(case.enroll())
    (order,) = case.world.acme.orders.values()
    assert order.profile == "short"


def test_identifiers_come_from_names() -> None:
    names = [x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    assert identifiers_of(names) == (Identifier("dns", "a.example"), Identifier("ip", "192.0.2.1"))
    with pytest.raises(LocalProtocolError):
        identifiers_of([x509.RFC822Name("a@b.example")])


def test_nothing_of_ours_goes_out_unsigned() -> None:
    """Every POST is a JWS with url and nonce; the key itself only where no account is known yet."""
    case = Case()
    issued(case.enroll())
    for request in case.sent:
        if request.method != "POST":
            continue
        protected = json.loads(jose.unb64(json.loads(request.body)["protected"]))
        assert protected["url"] == ORIGIN + request.target
        assert protected["nonce"]
        assert ("jwk" in protected) == request.target.endswith("new-account")
