"""OCSP: one violation a test, against answers that are right but for just that (RFC 6960, RFC 9654)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import ExtendedKeyUsageOID

import wire_pki as pki
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, HttpResponse, Moment
from holdfast.wire.revocation import ocsp
from holdfast.wire.revocation.ocsp import Question
from holdfast.wire.revocation.standing import SKEW, Standing

CA = pki.ca("Issuer")
OTHER = pki.ca("Other Issuer")
TWIN = pki.ca("Issuer")  # the same name, another key
LEAF = pki.end_entity("gateway", CA, eku=[pki.CLIENT_AUTH])
RSA_CA = pki.ca("RSA Issuer", kind="rsa2048")
DAY = timedelta(days=1)
QUESTION = ocsp.ask(LEAF.certificate, CA.certificate, lambda n: b"n" * n)
OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING


@dataclass(frozen=True)
class Answer:
    """An honest answer to QUESTION."""

    certificate: x509.Certificate = LEAF.certificate
    issuer: x509.Certificate = CA.certificate
    status: library.OCSPCertStatus = library.OCSPCertStatus.GOOD
    begins: datetime = pki.NOW
    ends: datetime | None = pki.NOW + DAY
    nonce: bytes | None = QUESTION.nonce
    signer: pki.Identity = CA
    certificates: tuple[x509.Certificate, ...] = ()
    by_name: bool = False
    digest: type[Any] = hashes.SHA256
    cert_id: type[Any] = hashes.SHA1

    def der(self) -> bytes:
        revoked = self.status is library.OCSPCertStatus.REVOKED
        builder = library.OCSPResponseBuilder().add_response(
            self.certificate,
            self.issuer,
            self.cert_id(),
            self.status,
            self.begins,
            self.ends,
            self.begins - DAY if revoked else None,
            x509.ReasonFlags.superseded if revoked else None,
        )
        kind = library.OCSPResponderEncoding
        builder = builder.responder_id(kind.NAME if self.by_name else kind.HASH, self.signer.certificate)
        if self.certificates:
            builder = builder.certificates(self.certificates)
        if self.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(self.nonce), critical=False)
        return builder.sign(self.signer.key, self.digest()).public_bytes(Encoding.DER)


def judged(answer: Answer, now: Moment = pki.TRUSTED, question: Question = QUESTION) -> Standing:
    return ocsp.judge(answer.der(), question, now)


def delegate(issuer: pki.Identity = CA, eku: tuple[Any, ...] = (OCSP_SIGNING,), **dates: Any) -> pki.Identity:
    return pki.end_entity("responder", issuer, eku=eku, **dates)


def by(responder: pki.Identity, *more: x509.Certificate) -> Answer:
    return Answer(signer=responder, certificates=(*more, responder.certificate))


# --- what holds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        Answer(by_name=True),
        Answer(nonce=None),
        Answer(ends=None),
        Answer(cert_id=hashes.SHA256),
        Answer(digest=hashes.SHA384),
        by(delegate()),
        by(delegate(), OTHER.certificate),
        replace(by(delegate()), by_name=True),
    ],
)
def test_a_right_answer_says_good(answer: Answer) -> None:
    assert judged(answer) == Standing(revoked=False, until=answer.ends)


def test_revoked_is_told_with_its_date_and_reason() -> None:
    answer = Answer(status=library.OCSPCertStatus.REVOKED)
    assert judged(answer) == Standing(
        revoked=True, at=pki.NOW - DAY, reason="superseded", until=pki.NOW + DAY
    )


def test_an_rsa_issuer() -> None:
    leaf = pki.end_entity("gateway", RSA_CA)
    question = ocsp.ask(leaf.certificate, RSA_CA.certificate, lambda n: b"r" * n)
    answer = Answer(leaf.certificate, RSA_CA.certificate, nonce=question.nonce, signer=RSA_CA)
    assert not judged(answer, question=question).revoked


# --- one violation each ------------------------------------------------------------------------------

VIOLATIONS: dict[str, tuple[Callable[[], Answer], type[HoldfastError], str]] = {
    "a stranger signs": (lambda: Answer(signer=OTHER), TrustError, "ocsp.signer"),
    "a stranger signs and shows itself": (lambda: by(OTHER), TrustError, "ocsp.signer"),
    "in the issuer's name": (lambda: Answer(signer=TWIN, by_name=True), TrustError, "ocsp.signature"),
    "a delegate of another CA": (lambda: by(delegate(OTHER)), TrustError, "ocsp.signer"),
    "a delegate of a CA of the same name": (lambda: by(delegate(TWIN)), TrustError, "ocsp.signer"),
    "a delegate of the issuer's key under another name": (
        lambda: by(delegate(pki.ca("Another Name", key=CA.key))),
        TrustError,
        "ocsp.signer",
    ),
    "a delegate for other things": (
        lambda: by(delegate(eku=(pki.SERVER_AUTH,))),
        TrustError,
        "ocsp.signer",
    ),
    "a delegate for nothing in particular": (lambda: by(delegate(eku=())), TrustError, "ocsp.signer"),
    "our own certificate as the delegate": (lambda: by(LEAF), TrustError, "ocsp.signer"),
    "a delegate that has ended": (
        lambda: by(delegate(not_before=pki.NOW - 9 * DAY, not_after=pki.NOW - DAY)),
        TrustError,
        "ocsp.signer",
    ),
    "a delegate that has not begun": (
        lambda: by(delegate(not_before=pki.NOW + DAY)),
        TrustError,
        "ocsp.signer",
    ),
    "a delegate of a delegate": (
        lambda: by(pki.end_entity("second", delegate(), eku=[OCSP_SIGNING])),
        TrustError,
        "ocsp.signer",
    ),
    "another nonce": (lambda: Answer(nonce=b"x" * 32), TrustError, "ocsp.nonce"),
    "a shorter nonce": (lambda: Answer(nonce=QUESTION.nonce[:16]), TrustError, "ocsp.nonce"),
    "an old answer": (
        lambda: Answer(nonce=None, begins=pki.NOW - 9 * DAY, ends=pki.NOW - DAY),
        TrustError,
        "ocsp.stale",
    ),
    "an old answer without an end": (
        lambda: Answer(nonce=None, begins=pki.NOW - 8 * DAY, ends=None),
        TrustError,
        "ocsp.stale",
    ),
    "an answer of tomorrow": (
        lambda: Answer(begins=pki.NOW + DAY, ends=pki.NOW + 2 * DAY),
        TrustError,
        "ocsp.not-yet",
    ),
    "about another certificate": (
        lambda: Answer(certificate=pki.end_entity("neighbour", CA).certificate),
        RemoteProtocolError,
        "ocsp.other-certificate",
    ),
    "about our number at another CA": (
        lambda: Answer(issuer=OTHER.certificate),
        RemoteProtocolError,
        "ocsp.other-certificate",
    ),
    "unknown": (
        lambda: Answer(status=library.OCSPCertStatus.UNKNOWN),
        RemoteProtocolError,
        "ocsp.unknown",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_an_answer_that_breaks_one_rule_says_nothing(name: str) -> None:
    make, kind, code = VIOLATIONS[name]
    with pytest.raises(kind) as caught:
        judged(make())
    assert caught.value.code == code
    assert caught.value.clause


@pytest.mark.parametrize("revoked", [False, True])
def test_no_flipped_bit_is_believed(revoked: bool) -> None:
    status = library.OCSPCertStatus.REVOKED if revoked else library.OCSPCertStatus.GOOD
    der = Answer(status=status).der()
    for at in range(0, len(der), 3):
        changed = der[:at] + bytes([der[at] ^ 4]) + der[at + 1 :]
        try:
            standing = ocsp.judge(changed, QUESTION, pki.TRUSTED)
        except HoldfastError:
            continue
        assert standing.revoked == revoked, at


@pytest.mark.parametrize("word", ["MALFORMED_REQUEST", "INTERNAL_ERROR", "TRY_LATER", "UNAUTHORIZED"])
def test_an_unsuccessful_answer_says_nothing(word: str) -> None:
    status = library.OCSPResponseStatus[word]
    der = library.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
    with pytest.raises(RemoteProtocolError) as caught:
        ocsp.judge(der, QUESTION, pki.TRUSTED)
    assert caught.value.code == "ocsp.unsuccessful"
    assert word.lower() in caught.value.detail


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"garbage", b"\x30\x82\xff\xff"])
def test_bytes_that_are_no_answer(der: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ocsp.judge(der, QUESTION, pki.TRUSTED)
    assert caught.value.code == "ocsp.syntax"


# --- time --------------------------------------------------------------------------------------------


def test_without_a_trusted_clock_only_the_floor_ends_an_answer() -> None:
    floor_only = Moment(pki.NOW + 99 * DAY, pki.NOW, ClockState.FLOOR_ONLY)
    assert not judged(Answer(), floor_only).revoked
    assert not judged(Answer(begins=pki.NOW + DAY, ends=pki.NOW + 2 * DAY), floor_only).revoked
    late = Moment(pki.NOW + 3 * DAY, pki.NOW + 2 * DAY, ClockState.FLOOR_ONLY)
    with pytest.raises(TrustError) as caught:
        judged(Answer(), late)
    assert caught.value.code == "ocsp.stale"


def test_five_minutes_of_difference_are_forgiven() -> None:
    assert not judged(Answer(begins=pki.NOW + SKEW)).revoked
    assert not judged(Answer(begins=pki.NOW - DAY, ends=pki.NOW - SKEW)).revoked


# --- the request -------------------------------------------------------------------------------------


def test_the_request_names_our_certificate_and_carries_a_fresh_nonce() -> None:
    asked = library.load_der_ocsp_request(QUESTION.der)
    assert asked.serial_number == LEAF.certificate.serial_number
    nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    assert nonce == QUESTION.nonce == b"n" * 32


def test_the_exchange_posts_and_judges() -> None:
    exchange = ocsp.exchange(QUESTION, "/ocsp", pki.TRUSTED)
    request = next(exchange)
    assert (request.method, request.target, request.body) == ("POST", "/ocsp", QUESTION.der)
    assert dict(request.headers)["Content-Type"] == "application/ocsp-request"
    with pytest.raises(StopIteration) as done:
        exchange.send(HttpResponse(200, (("Content-Type", "application/ocsp-response"),), Answer().der()))
    assert done.value.value == Standing(revoked=False, until=pki.NOW + DAY)


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (HttpResponse(404, (("Content-Type", ocsp.RESPONSE_TYPE),), b""), "ocsp.status"),
        (HttpResponse(302, (("Location", "http://elsewhere/"),), b""), "ocsp.status"),
        (HttpResponse(200, (("Content-Type", "text/html"),), b"<html>"), "ocsp.content-type"),
        (HttpResponse(200, (), b""), "ocsp.content-type"),
        (HttpResponse(200, (("Content-Type", ocsp.RESPONSE_TYPE),), bytes(65537)), "ocsp.too-large"),
    ],
)
def test_an_http_answer_that_is_none(response: HttpResponse, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ocsp.read(response)
    assert caught.value.code == code
