"""The simulated CMP server is no fool: it judges what it is asked, and says what is wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdfast.wire import crmf, csr, der
from holdfast.wire.cmp import bodies, requests
from holdfast.wire.cmp.bodies import Failure
from holdfast.wire.cmp.message import Body, Header, Message, encode, parse
from holdfast.wire.cmp.paths import MEDIA_TYPE, post
from holdfast.wire.cmp.protection import Protector, SharedSecret, Signer
from holdfast.wire.model import HttpRequest, KeyAlgorithm
from holdfast_sim.ca import name, new_key
from sim.actors import SERIAL
from sim.cmp_actors import REFERENCE, SECRET, Cmp

PATH = "/.well-known/cmp"


def message(
    cmp: Cmp, kind: Body, content: bytes, protector: Protector | None = None, **changes: Any
) -> bytes:
    """A first message of the device, with *changes* to its header."""
    by = protector or Signer(*cmp.bench.idevid)
    algorithm, protect = by.start(os.urandom)
    header = Header(
        by.sender,
        by.sender,
        message_time=cmp.bench.time.now,
        protection=algorithm,
        sender_kid=by.key_id,
        transaction=os.urandom(16),
        sender_nonce=os.urandom(16),
    )
    header = replace(header, **changes)
    return encode(header, kind, content, protect=protect, extra_certs=by.extra_certs)


def said(cmp: Cmp, data: bytes, path: str = PATH) -> Message:
    response = cmp.bench.send(post(path, data), cmp.bench.stranger)
    assert response.status == 200
    return parse(response.body)


def failures(cmp: Cmp, data: bytes) -> frozenset[int]:
    answer = said(cmp, data)
    assert answer.kind is Body.ERROR
    assert cmp.world.issued == []
    return bodies.read_error(answer.content).status.failures


def request(cmp: Cmp) -> bytes:
    asked = csr.build(cmp.bench.key, name("gateway", serial_number=SERIAL))
    return requests.request_message(asked, cmp.bench.key)


def test_possession_of_the_key_must_be_proved() -> None:
    cmp = Cmp.make()
    good = request(cmp)
    other = csr.build(new_key(KeyAlgorithm.P256), name("gateway"))
    forged = requests.request_message(other, cmp.bench.key)
    assert failures(cmp, message(cmp, Body.IR, forged)) == {Failure.BAD_POP}
    (asked,) = crmf.read_requests(good)
    claimed = der.sequence(der.sequence(asked.signed, der.implicit(0, b"")))
    assert crmf.read_requests(claimed)[0].ra_verified
    assert failures(cmp, message(cmp, Body.IR, claimed)) == {Failure.BAD_POP}
    keyless = der.sequence(der.sequence(der.sequence(der.integer(0), crmf.Template().encode())))
    assert failures(cmp, message(cmp, Body.IR, keyless)) == {Failure.BAD_CERT_TEMPLATE}


def test_one_request_at_a_time() -> None:
    cmp = Cmp.make()
    (one,) = (each.any() for each in der.read_one(request(cmp)).each())
    assert failures(cmp, message(cmp, Body.IR, der.sequence(one, one))) == {Failure.BAD_REQUEST}


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"sender_nonce": b"short"}, Failure.BAD_SENDER_NONCE),
        ({"transaction": b""}, Failure.BAD_DATA_FORMAT),
        ({"recip_nonce": bytes(16)}, Failure.BAD_RECIPIENT_NONCE),
        ({"pvno": 1}, Failure.UNSUPPORTED_VERSION),
        ({"protection": None}, Failure.BAD_MESSAGE_CHECK),
    ],
)
def test_a_header_is_judged(changes: dict[str, Any], failure: Failure) -> None:
    cmp = Cmp.make()
    assert failures(cmp, message(cmp, Body.IR, request(cmp), **changes)) == {failure}


def test_a_message_of_yesterday_is_refused() -> None:
    cmp = Cmp.make()
    late = cmp.bench.time.now - timedelta(days=1)
    data = message(cmp, Body.IR, request(cmp), message_time=late)
    assert failures(cmp, data) == {Failure.BAD_TIME}


def test_protection_is_judged() -> None:
    cmp = Cmp.make()
    stranger = cmp.world.impostor.registrar
    data = message(cmp, Body.IR, request(cmp), Signer(stranger.chain, stranger.key))
    assert failures(cmp, data) == {Failure.SIGNER_NOT_TRUSTED}
    data = message(cmp, Body.IR, request(cmp), SharedSecret("nobody", b"x", iterations=200))
    assert failures(cmp, data) == {Failure.BAD_MESSAGE_CHECK}
    signed = bytearray(message(cmp, Body.IR, request(cmp)))
    signed[80] ^= 1
    assert said(cmp, bytes(signed)).kind is Body.ERROR


def test_another_party_may_not_go_on_with_a_transaction() -> None:
    cmp = Cmp.make()
    transaction = os.urandom(16)
    answer = said(cmp, message(cmp, Body.IR, request(cmp), transaction=transaction))
    assert answer.kind is Body.IP
    other = SharedSecret(REFERENCE, SECRET, iterations=200)
    data = message(
        cmp,
        Body.POLL_REQ,
        bodies.poll_request(0),
        other,
        transaction=transaction,
        recip_nonce=answer.header.sender_nonce,
    )
    error = bodies.read_error(said(cmp, data).content)
    assert error.status.has(Failure.WRONG_INTEGRITY)


def test_an_rr_under_a_secret_is_refused() -> None:
    cmp = Cmp.make()
    content = requests.revocation_request(cmp.world.domain.registrar.certificate, 4)
    data = message(cmp, Body.RR, content, SharedSecret(REFERENCE, SECRET, iterations=200))
    assert failures(cmp, data) == {Failure.NOT_AUTHORIZED}
    assert cmp.world.revoked == set()


@pytest.mark.parametrize("count", [1, 2])
def test_messages_nested_by_an_ra_are_opened(count: int) -> None:
    cmp = Cmp.make()
    registrar = cmp.world.domain.registrar
    inner = [message(cmp, Body.IR, request(cmp)) for _ in range(count)]
    data = message(cmp, Body.NESTED, bodies.nested(inner), Signer(registrar.chain, registrar.key))
    answer = said(cmp, data)
    answers = (answer,) if count == 1 else bodies.read_nested(answer.content)
    assert [a.kind for a in answers] == [Body.IP] * count
    assert len(cmp.world.issued) == count


def test_a_nest_that_nobody_vouches_for_is_not_opened() -> None:
    cmp = Cmp.make()
    stranger = cmp.world.impostor.registrar
    inner = [message(cmp, Body.IR, request(cmp))]
    data = message(cmp, Body.NESTED, bodies.nested(inner), Signer(stranger.chain, stranger.key))
    assert failures(cmp, data) == {Failure.SIGNER_NOT_TRUSTED}


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("GET", PATH, MEDIA_TYPE, 405),
        ("POST", PATH, "text/plain", 415),
        ("POST", f"{PATH}/nonsense", MEDIA_TYPE, 404),
        ("POST", f"{PATH}/p/a/b/c", MEDIA_TYPE, 404),
        ("POST", f"{PATH}/p/gateway/keyupdate", MEDIA_TYPE, 200),
    ],
)
def test_what_is_no_cmp_is_told_by_http(method: str, path: str, kind: str, status: int) -> None:
    cmp = Cmp.make()
    asked = HttpRequest(method, path, (("Content-Type", kind),), b"\x30\x00")
    assert cmp.bench.send(asked, cmp.bench.stranger).status == status
