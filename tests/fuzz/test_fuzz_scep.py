"""Whatever a SCEP server, or a SCEP client, sends: named errors and outcomes, and nothing spoilt is issued.

Edits come from fixed seeds; keys, nonces and envelopes differ between runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire import oids
from holdfast.wire.cms import certs_only, sign
from holdfast.wire.errors import HoldfastError, LocalProtocolError
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse
from holdfast.wire.scep import messages
from holdfast.wire.scep.authority import authenticate, read_certificates
from holdfast.wire.scep.capabilities import read_capabilities
from holdfast.wire.scep.http import message_of_query
from holdfast.wire.scep.messages import Message
from holdfast.wire.scep.vocabulary import FailInfo, MessageType, PkiStatus
from holdfast_sim import scep
from holdfast_sim.answers import Peer
from holdfast_sim.ca import name
from sim.scep_actors import ScepBench, rsa_key

FAMILIES = {"scep", "cms", "certificate", "chain", "key", "signature"}


_ODD = tuple(map(bytes.fromhex, ("00", "80", "ff", "3080", "84ffffffff", "3100", "1300", "0600")))


def edited(seed: bytes, source: random.Random) -> bytes:
    """*seed* with one to four edits, some of them such as break a parser."""
    data = bytearray(seed)
    for _ in range(source.randint(1, 4)):
        at, size = source.randrange(len(data) + 1), source.choice((0, 1, 1, 2, 8, 64))
        new = (source.choice(_ODD), source.randbytes(source.randint(0, 6)), bytes(data[at : at + 40]))
        data[at : at + size] = source.choice(new)
        data = data or bytearray(1)
    return bytes(data) if source.random() < 0.9 else bytes(data[: source.randrange(len(data))])


@pytest.fixture(scope="module")
def bench() -> ScepBench:
    return ScepBench.make()


def carried(exchange: Exchange[Any], serve: Callable[[HttpRequest], HttpResponse]) -> Any:
    """The outcome, or the code of the error that the exchange ended with. Our own bugs come through."""
    try:
        asked = next(exchange)
        while True:
            asked = exchange.send(serve(asked))
    except StopIteration as stop:
        return stop.value
    except LocalProtocolError:
        raise
    except HoldfastError as error:
        return error.code


def test_mutated_replies(bench: ScepBench) -> None:
    """One reply, spoilt in many ways: refused, or it says what the honest one said."""
    protocol, request = bench.protocol(), bench.request()
    issued = bench.enroll(request)
    source = random.Random(8894)

    def serve(asked: HttpRequest) -> HttpResponse:
        answer = bench.site.answer("plain", asked, Peer((), ())).response
        return replace(answer, body=edited(answer.body, source)) if "PKIOperation" in asked.target else answer

    outcomes = [carried(protocol.enroll(request, None, bench.now), serve) for _ in range(250)]
    codes = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert {code.split(".")[0] for code in codes} <= FAMILIES
    assert all(outcome == issued for outcome in outcomes if not isinstance(outcome, str))
    assert len(codes) > 225


def test_mutated_authorities(bench: ScepBench) -> None:
    body = certs_only(scep.authority(bench.world).chain)
    trust = bench.protocol().trust
    known = set(authenticate(read_certificates(body), trust, bench.now).certificates)
    source = random.Random(4)
    for _ in range(1500):
        try:
            found = authenticate(read_certificates(edited(body, source)), trust, bench.now)
        except HoldfastError as error:
            assert error.code.split(".")[0] in FAMILIES  # noqa: PT017 - no error may be right, too
        else:
            assert set(found.certificates) <= known


def test_mutated_requests_do_not_fell_the_simulator(bench: ScepBench) -> None:
    exchange = bench.protocol().enroll(bench.request(rsa_key(3)), None, bench.now)
    asked = next(exchange)
    while "PKIOperation" not in asked.target:
        asked = exchange.send(bench.site.answer("plain", asked, Peer((), ())).response)
    exchange.close()
    before, source = len(bench.world.issued), random.Random(5)
    for _ in range(400):
        spoilt = replace(asked, body=edited(asked.body, source))
        status = bench.site.answer("plain", spoilt, Peer((), ())).response.status
        assert status in {200, 400, 413}
    assert len(bench.world.issued) - before <= 1, "at most the honest request, in which nothing was changed"


TYPES = st.sampled_from([f"2.16.840.1.113733.1.9.{n}" for n in range(2, 9)])


@given(st.lists(st.tuples(TYPES, st.binary(max_size=12)), max_size=9))
def test_any_attributes(attributes: list[tuple[str, bytes]]) -> None:
    """Signed by a known key, and still nothing but our errors."""
    bench = _shared()
    by = scep.authority(bench.world).signer
    values = [(dotted, core.Any(core.OctetString(value))) for dotted, value in attributes]
    made = sign(b"", oids.CT_DATA, by.key, by.certificate, attributes=values)
    with pytest.raises(HoldfastError) as caught:
        messages.read(made)
    assert caught.value.code == "scep.attributes"


@given(
    st.sampled_from(list(MessageType)),
    st.text("ABCabc0189 '()+,-./:=?", min_size=1, max_size=64),
    st.binary(min_size=1, max_size=64),
    st.binary(max_size=64),
    st.sampled_from([None, *PkiStatus]),
    st.sampled_from([None, *FailInfo]),
    st.text(max_size=60).filter(str.isprintable),
    st.binary(max_size=100),
)
def test_what_is_written_is_read(
    kind: MessageType,
    transaction: str,
    nonce: bytes,
    answer: bytes,
    status: PkiStatus | None,
    reason: FailInfo | None,
    text: str,
    envelope: bytes,
) -> None:
    message = Message(kind, transaction, nonce, envelope, answer, status, reason, text)
    by = scep.authority(_shared().world).signer
    read = messages.read(messages.encode(message, by.key, by.certificate))
    assert read.message == message
    assert read.signer == by.certificate


@given(st.binary(max_size=300), st.integers(100, 599))
def test_capabilities_and_queries(body: bytes, status: int) -> None:
    found = read_capabilities(HttpResponse(status, (), body))
    assert all(word == word.strip().lower() for word in found.keywords)
    try:
        message_of_query(body.decode("latin-1"))
    except HoldfastError as error:
        assert error.code == "scep.base64"  # noqa: PT017 - no error may be right, too


@given(st.binary(max_size=120))
def test_names_and_numbers(der: bytes) -> None:
    for read in (messages.read_issuer_and_subject, messages.read_issuer_and_serial):
        try:
            read(der)
        except HoldfastError as error:
            assert error.code == "scep.syntax"  # noqa: PT017 - no error may be right, too
    pair = messages.issuer_and_subject(name("CA"), name("gateway"))
    assert messages.read_issuer_and_subject(pair)[1] == name("gateway").public_bytes()
    assert messages.read_issuer_and_serial(messages.issuer_and_serial(name("CA"), 77))[1] == 77


BODIES = st.one_of(st.binary(max_size=200), st.just(b""))


ANSWERS = st.tuples(st.sampled_from([200, 200, 202, 302, 404, 429, 500, 999]), BODIES)


@given(st.lists(ANSWERS, min_size=4, max_size=4))
def test_any_conversation(answers: list[tuple[int, bytes]]) -> None:
    bench = _shared()
    protocol, request = bench.protocol(), bench.request()
    for exchange in (protocol.enroll(request, None, bench.now), protocol.discover(None, bench.now)):
        left = iter(answers)

        def serve(_: HttpRequest, left: Iterator[tuple[int, bytes]] = left) -> HttpResponse:
            status, body = next(left)
            return HttpResponse(status, (), body)

        outcome = carried(exchange, serve)
        assert outcome.split(".")[0] in FAMILIES, "nothing good comes of arbitrary octets"


_BENCH: list[ScepBench] = []


def _shared() -> ScepBench:
    if not _BENCH:
        _BENCH.append(ScepBench.make())
    return _BENCH[0]
