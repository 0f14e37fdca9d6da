"""In each test the CMP server breaks one rule, and the device trusts nothing and says which rule it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from holdfast.wire import algorithms
from holdfast.wire.cmp import bodies, mac, paths
from holdfast.wire.cmp.bodies import Status
from holdfast.wire.cmp.client import CmpProtocol, Form, Inquirer
from holdfast.wire.cmp.protection import SharedSecret
from holdfast.wire.cmp.revocation import revoke
from holdfast.wire.cmp.support import Question, ask, ca_certs, root_update
from holdfast.wire.cmp.transaction import CmpLimits, Server
from holdfast.wire.errors import (
    HoldfastError,
    LocalProtocolError,
    RemoteProtocolError,
    Retry,
    TrustError,
)
from holdfast.wire.identified import named
from holdfast.wire.issued import NamePolicy
from holdfast.wire.model import HttpResponse, Issued, Pending, Rejected
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.cmp_desk import CmpPolicy
from sim.cmp_actors import Cmp

IMPLICIT = CmpPolicy(implicit_confirm=True)


def refused(cmp: Cmp, act: Callable[[], Any] | None = None) -> HoldfastError:
    with pytest.raises(HoldfastError) as caught:
        (act or cmp.enroll)()
    return caught.value


def fault(error: HoldfastError) -> tuple[type[HoldfastError], str]:
    return type(error), error.code


ENVELOPE = {
    "wrong-version": (RemoteProtocolError, "cmp.version"),
    "wrong-transaction": (TrustError, "cmp.transaction"),
    "wrong-nonce": (TrustError, "cmp.nonce"),
    "no-nonce": (TrustError, "cmp.nonce"),
    "wrong-sender": (TrustError, "cmp.sender"),
    "wrong-body": (RemoteProtocolError, "cmp.body"),
    "unprotected": (TrustError, "cmp.unprotected"),
    "unprotected-error": (RemoteProtocolError, "cmp.unprotected-error"),
    "tampered": (TrustError, "cmp.protection"),
    "foreign-signer": (TrustError, "chain.untrusted"),
    "device-signer": (TrustError, "chain.usage"),
    "no-signer-certificate": (TrustError, "cmp.sender"),
    "mac-instead": (TrustError, "cmp.protection-kind"),
}


@pytest.mark.parametrize("kind", ENVELOPE)
@pytest.mark.parametrize("place", ["cmp-ir", "cmp-certConf", "cmp-pollReq"])
def test_an_envelope_that_breaks_a_rule_is_refused(place: str, kind: str) -> None:
    cmp = Cmp.make(f"{place}:{kind}", policy=CmpPolicy(polls=int(place == "cmp-pollReq")))
    if kind == "wrong-body" and place == "cmp-pollReq":
        place = "cmp-ir"
    assert fault(refused(cmp)) == ENVELOPE[kind]
    assert not any(isinstance(o, Issued) for o in cmp.outcomes)


SECRET = {
    "wrong-transaction": (TrustError, "cmp.transaction"),
    "wrong-nonce": (TrustError, "cmp.nonce"),
    "unprotected": (TrustError, "cmp.unprotected"),
    "unprotected-error": (RemoteProtocolError, "cmp.unprotected-error"),
    "tampered": (TrustError, "cmp.protection"),
    "wrong-secret": (TrustError, "cmp.protection"),
    "signature-instead": (TrustError, "cmp.protection-kind"),
    "mac-bomb": (TrustError, "cmp.mac-iterations"),
    "mac-weak": (TrustError, "cmp.mac-iterations"),
    "mac-sha1": (TrustError, "cmp.mac-algorithm"),
}


@pytest.mark.parametrize("kind", SECRET)
@pytest.mark.parametrize("place", ["cmp-ir", "cmp-certConf"])
@pytest.mark.parametrize("form", ["pbm", "pbmac1"])
def test_an_envelope_under_a_secret_that_breaks_a_rule_is_refused(place: str, kind: str, form: str) -> None:
    cmp = Cmp.make(f"{place}:{kind}", secret=True)
    assert cmp.protocol.secret is not None
    cmp.protocol = replace(cmp.protocol, secret=replace(cmp.protocol.secret, kind=form))
    assert fault(refused(cmp)) == SECRET[kind]
    assert not any(isinstance(o, Issued) for o in cmp.outcomes)


@pytest.mark.parametrize("form", ["pbm", "pbmac1"])
def test_a_bomb_of_iterations_costs_no_hash(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    stretch, pbkdf2 = mac.stretch, hashlib.pbkdf2_hmac

    def counting_stretch(digest: str, start: bytes, iterations: int) -> bytes:
        counted.append(iterations)
        return stretch(digest, start, iterations)

    def counting_pbkdf2(name: str, secret: bytes, salt: bytes, iterations: int, length: int) -> bytes:
        counted.append(iterations)
        return pbkdf2(name, secret, salt, iterations, length)

    monkeypatch.setattr(mac, "stretch", counting_stretch)
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting_pbkdf2)
    cmp = Cmp.make("cmp:mac-bomb", secret=True)
    assert cmp.protocol.secret is not None
    cmp.protocol = replace(cmp.protocol, secret=replace(cmp.protocol.secret, kind=form))
    assert refused(cmp).code == "cmp.mac-iterations"
    assert counted == [200, 200]  # our own request, made and checked; nothing for the answer


def test_the_protector_may_not_change_within_a_transaction() -> None:
    """An authority of the domain, but not the one that granted the certificate."""
    assert fault(refused(Cmp.make("cmp-certConf:other-signer"))) == (TrustError, "cmp.signer-changed")
    polled = Cmp.make("cmp-pollReq:other-signer:after=1", policy=CmpPolicy(polls=2))
    assert fault(refused(polled)) == (TrustError, "cmp.signer-changed")


def test_another_server_than_the_configured_one_is_refused() -> None:
    cmp = Cmp.make()
    known = named(cmp.world.domain.registrar.certificate.subject)
    cmp.protocol = CmpProtocol(server=Server(recipient=known))
    assert isinstance(cmp.enroll(), Issued)
    cmp.world.cmp = replace(cmp.world.cmp, authority="ca")
    assert fault(refused(cmp, lambda: cmp.enroll(cmp.request()))) == (TrustError, "cmp.sender")


def test_a_ca_may_answer_itself() -> None:
    assert isinstance(Cmp.make(policy=CmpPolicy(authority="ca")).enroll(), Issued)


def test_an_end_entity_may_answer_only_if_it_is_pinned() -> None:
    cmp = Cmp.make("cmp:device-signer", policy=IMPLICIT)
    assert refused(cmp).code == "chain.usage"
    signer = x509.load_der_x509_certificate(cmp.received[0].extra_certs[0])
    pin = hashlib.sha256(algorithms.spki(signer)).digest()
    cmp.protocol = CmpProtocol(pins=frozenset({bytes(32)}))
    assert refused(cmp).code == "chain.usage"
    cmp.protocol = CmpProtocol(pins=frozenset({pin}))
    assert isinstance(cmp.enroll(), Issued)


ISSUED = {
    "key-mismatch": (TrustError, "cmp.key-mismatch"),
    "issued-ca": (TrustError, "chain.is-ca"),
    "foreign-ca": (TrustError, "chain.untrusted"),
    "issued-expired": (TrustError, "chain.expired"),
    "wrong-usage": (TrustError, "chain.usage"),
    "central-key": (TrustError, "cmp.central-key"),
    "no-certificate": (RemoteProtocolError, "cmp.no-certificate"),
    "wrong-request-id": (RemoteProtocolError, "cmp.request-id"),
    "two-responses": (RemoteProtocolError, "cmp.responses"),
}


@pytest.mark.parametrize("kind", ISSUED)
@pytest.mark.parametrize("form", [Form.AUTO, Form.P10CR])
def test_a_certificate_that_breaks_a_rule_is_refused(kind: str, form: Form) -> None:
    place = "cmp-ir" if form is Form.AUTO else "cmp-p10cr"
    cmp = Cmp.make(f"{place}:{kind}", form=form)
    assert fault(refused(cmp)) == ISSUED[kind]


@pytest.mark.parametrize("kind", ["key-mismatch", "issued-ca", "foreign-ca", "wrong-usage", "central-key"])
def test_the_ca_is_told_that_its_certificate_is_not_taken(kind: str) -> None:
    """Also where it would have done without a confirmation, so that it can revoke (RFC 9810 §5.3.18)."""
    cmp = Cmp.make(f"cmp-ir:{kind}")
    refused(cmp)
    assert [m.kind.label for m in cmp.sent] == ["ir", "certConf"]
    (said,) = bodies.read_cert_confirm(cmp.sent[1].content)
    assert said.status is not None
    assert said.status.status == Status.REJECTION
    assert cmp.world.issued[-1].certificate.serial_number in cmp.world.revoked


def test_a_renewal_keeps_its_names() -> None:
    cmp = Cmp.make("cmp-kur:wrong-subject", policy=IMPLICIT)
    first = cmp.enroll()
    assert isinstance(first, Issued)
    error = refused(cmp, lambda: cmp.enroll(cmp.renewal(first)))
    assert fault(error) == (TrustError, "cmp.names")


def test_other_names_at_first_are_the_operators_choice() -> None:
    assert isinstance(Cmp.make("cmp-ir:wrong-subject", policy=IMPLICIT).enroll(), Issued)
    strict = Cmp.make("cmp-ir:wrong-subject", policy=IMPLICIT, initial_names=NamePolicy.EXACT)
    assert fault(refused(strict)) == (TrustError, "cmp.names")


def test_implicit_confirmation_that_is_not_echoed_is_none() -> None:
    cmp = Cmp.make("cmp-ir:no-implicit-echo", policy=IMPLICIT)
    assert isinstance(cmp.enroll(), Issued)
    assert [m.kind.label for m in cmp.sent] == ["ir", "certConf"]


# --- caPubs ---------------------------------------------------------------------------------------------


def test_capubs_of_another_domain_change_nothing() -> None:
    cmp = Cmp.make("cmp-ir:ca-pubs", policy=IMPLICIT)
    anchors = cmp.world.domain.anchors
    outcome = cmp.enroll()
    assert isinstance(outcome, Issued)
    assert outcome.anchors == anchors


def test_capubs_are_anchors_only_under_a_secret() -> None:
    secret = Cmp.make(policy=IMPLICIT, secret=True)
    outcome = secret.enroll(secret.request(anchors=()))
    assert isinstance(outcome, Issued)
    assert outcome.anchors == secret.world.domain.anchors
    confirmed = Cmp.make(secret=True)  # and they outlive the pause before the confirmation
    assert isinstance(confirmed.enroll(confirmed.request(anchors=())), Issued)


def test_capubs_in_a_signed_answer_are_not_believed() -> None:
    """Without an anchor nobody can judge the signature either, so there is no way to a certificate."""
    cmp = Cmp.make(policy=IMPLICIT)
    assert refused(cmp, lambda: cmp.enroll(cmp.request(anchors=()))).code == "chain.untrusted"


def test_a_foreign_issuer_under_a_secret_needs_its_root_in_capubs() -> None:
    cmp = Cmp.make("cmp-ir:foreign-ca", policy=IMPLICIT, secret=True)
    assert refused(cmp, lambda: cmp.enroll(cmp.request(anchors=()))).code == "chain.untrusted"


# --- refusals, HTTP ---------------------------------------------------------------------------------------


def test_an_authenticated_refusal_is_an_outcome() -> None:
    outcome = Cmp.make("cmp-ir:refuse").enroll()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.estranged) == ("cmp.unauthorized", True)
    assert "a simulated fault" in outcome.detail


def test_an_unprotected_error_is_told_and_is_no_reason_for_anything() -> None:
    error = refused(Cmp.make("cmp-ir:unprotected-error"))
    assert error.retry is Retry.BACKOFF
    assert "systemFailure" in error.detail
    assert isinstance(error, RemoteProtocolError)
    assert not error.unsupported


def test_a_wrong_secret_is_answered_by_an_error_that_nobody_vouches_for() -> None:
    cmp = Cmp.make(secret=True)
    cmp.protocol = replace(cmp.protocol, secret=SharedSecret("gateway-7", b"wrong", iterations=200))
    assert refused(cmp).code == "cmp.unprotected-error"


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ("cmp:status:code=404", "cmp.unsupported"),
        ("cmp:status:code=501", "cmp.unsupported"),
        ("cmp:status:code=403", "cmp.refused"),
        ("cmp:status:code=503:retry-after=7", "cmp.unavailable"),
        ("cmp:redirect:to=https://elsewhere.example/", "cmp.redirect"),
        ("cmp:wrong-type", "cmp.content-type"),
        ("cmp:empty", "cmp.content-type"),
        ("cmp:garbage", "cmp.syntax"),
        ("cmp:cut-der", "cmp.syntax"),
    ],
)
def test_http_is_no_state_of_the_protocol(declared: str, code: str) -> None:
    error = refused(Cmp.make(declared))
    assert fault(error) == (RemoteProtocolError, code)
    assert isinstance(error, RemoteProtocolError)
    assert error.unsupported is (code == "cmp.unsupported")
    assert error.busy is (code == "cmp.unavailable")


def test_a_message_counts_whatever_the_status() -> None:
    cmp = Cmp.make(policy=IMPLICIT)
    answer = cmp.bench.site.answer

    def as_500(*arguments: Any) -> Any:
        found = answer(*arguments)
        return replace(found, response=replace(found.response, status=500))

    cmp.bench.site.answer = as_500  # type: ignore[method-assign]
    assert isinstance(cmp.enroll(), Issued)
    big = HttpResponse(200, (("Content-Type", paths.MEDIA_TYPE),), bytes(2000))
    with pytest.raises(RemoteProtocolError, match=r"cmp\.too-large"):
        paths.read_answer(big, cmp.bench.time.moment(), limit=1000)


# --- polling ------------------------------------------------------------------------------------------------


def test_two_answers_to_one_poll_are_refused() -> None:
    cmp = Cmp.make("cmp-pollReq:two-polls", policy=CmpPolicy(polls=2))
    assert fault(refused(cmp)) == (RemoteProtocolError, "cmp.body")


@pytest.mark.parametrize(("said", "believed"), [(-5, 1), (0, 1), (10**12, 4 * 86400)])
def test_a_wait_is_bounded(said: int, believed: int) -> None:
    cmp = Cmp.make(policy=CmpPolicy(polls=1, check_after=said))
    req = cmp.request()
    pending = cmp.run(cmp.protocol.enroll(req, None, cmp.bench.time.moment()))
    polled = cmp.resume(req, pending)
    assert isinstance(polled, Pending)
    assert polled.retry_after.total_seconds() == believed


@pytest.mark.parametrize("token", [b"", b"{}", b"[]", b"null", b'{"v":2}', b'{"v":1,"id":"zz"}', b"\xff"])
def test_a_token_that_is_none_of_ours_is_refused(token: bytes) -> None:
    cmp = Cmp.make()
    with pytest.raises(LocalProtocolError, match=r"cmp\.resume"):
        cmp.resume(cmp.request(), Pending(CmpLimits().shortest_wait, token))


def test_a_token_resumes_its_own_request_only() -> None:
    cmp = Cmp.make()
    pending = cmp.run(cmp.protocol.enroll(cmp.request(), None, cmp.bench.time.moment()))
    with pytest.raises(LocalProtocolError, match=r"cmp\.resume"):
        cmp.resume(cmp.request(), pending)  # another CSR: ECDSA signs differently each time


# --- what we never send -----------------------------------------------------------------------------------


def test_a_key_made_by_the_server_is_refused_before_it_is_asked_for() -> None:
    with pytest.raises(LocalProtocolError, match=r"cmp\.central-key"):
        CmpProtocol().central_key_generation()


def test_a_request_needs_somebody_who_protects_it() -> None:
    cmp = Cmp.make()
    assert refused(cmp, lambda: cmp.enroll(cmp.request(signer=None))).code == "cmp.no-identity"


def test_a_renewal_needs_what_it_renews() -> None:
    cmp = Cmp.make(policy=IMPLICIT)
    first = cmp.enroll()
    assert isinstance(first, Issued)
    req = replace(cmp.renewal(first), current=None)
    assert refused(cmp, lambda: cmp.enroll(req)).code == "cmp.no-current"


def test_a_csr_for_another_key_is_not_sent() -> None:
    cmp = Cmp.make()
    other = Cmp.make()
    req = replace(cmp.request(), key=other.bench.device.key)
    assert refused(cmp, lambda: cmp.enroll(req)).code == "cmp.csr-key"
    assert cmp.sent == []


def test_a_certificate_is_revoked_by_nothing_but_itself() -> None:
    cmp = Cmp.make(policy=IMPLICIT)
    mine = cmp.enroll()
    assert isinstance(mine, Issued)
    act = revoke(cmp.transaction(), mine.chain[0], Reason.SUPERSEDED, cmp.bench.time.moment())
    assert refused(cmp, lambda: cmp.run(act)).code == "cmp.rr-signer"


def test_a_secret_shows_in_no_repr() -> None:
    cmp = Cmp.make(secret=True)
    texts = [repr(cmp.protocol), repr(cmp.protocol.secret), repr(cmp.world.cmp)]
    assert cmp.protocol.secret is not None
    texts.append(repr(cmp.protocol.secret.verifier))
    assert not [t for t in texts if "nine bean rows" in t]


# --- support messages -------------------------------------------------------------------------------------


def answered(cmp: Cmp, question: Question[Any]) -> HoldfastError:
    return refused(cmp, lambda: cmp.run(ask(cmp.transaction(), question, cmp.bench.time.moment())))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("wrong-info", "cmp.body"),
        ("leaf-anchor", "cmp.not-ca"),
        ("many-certificates", "cmp.too-many-certificates"),
    ],
)
def test_an_answer_about_ca_certificates_that_breaks_a_rule_is_refused(kind: str, code: str) -> None:
    cmp = Cmp.make(f"cmp-genm:{kind}")
    assert fault(answered(cmp, ca_certs())) == (RemoteProtocolError, code)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("foreign-root", "cmp.root-update"),
        ("foreign-link", "chain.untrusted"),
        ("unlinked-root", "cmp.root-update"),
        ("wrong-back-link", "cmp.root-update"),
    ],
)
def test_a_new_root_that_the_old_one_does_not_vouch_for_is_refused(kind: str, code: str) -> None:
    cmp = Cmp.make(f"cmp-genm:{kind}")
    old = cmp.world.domain.anchors[0]
    cmp.world.roll_over()
    assert fault(answered(cmp, root_update(old, cmp.bench.time.moment()))) == (TrustError, code)


def test_two_statuses_about_one_revocation_are_refused() -> None:
    cmp = Cmp.make("cmp-rr:two-statuses", policy=IMPLICIT)
    mine = cmp.enroll()
    assert isinstance(mine, Issued)
    transaction = cmp.transaction((mine.chain, cmp.bench.key))
    act = revoke(transaction, mine.chain[0], Reason.SUPERSEDED, cmp.bench.time.moment())
    assert fault(refused(cmp, lambda: cmp.run(act))) == (RemoteProtocolError, "cmp.body")


def test_discovery_by_an_identity_checks_the_answers_too() -> None:
    cmp = Cmp.make("cmp-genm:foreign-signer")
    inquirer = Inquirer(lambda: cmp.bench.idevid, cmp.world.domain.anchors)
    cmp.protocol = CmpProtocol(random=os.urandom, inquirer=inquirer)
    act = cmp.protocol.discover(None, cmp.bench.time.moment())
    assert refused(cmp, lambda: cmp.run(act)).code == "chain.untrusted"
