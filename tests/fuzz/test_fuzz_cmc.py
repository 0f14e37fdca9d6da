"""Whatever a CMC server, or a CMC client, sends: named errors and outcomes, and nothing spoilt is issued.

Edits come from fixed seeds; keys and nonces differ between runs. Answers are spoilt outside, where the
signature finds it, and inside, under a good signature of the authority, where only the reader can.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.test_fuzz_scep import carried, edited
from holdfast.wire import cms, cms_reading, der
from holdfast.wire.cmc import messages
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.messages import Control, PkiResponse
from holdfast.wire.cmc.status import StatusInfo, read_status
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse, Issued, Pending, Rejected
from holdfast_sim.answers import Peer
from holdfast_sim.cmc_desk import CmcPolicy
from holdfast_sim.cmc_replies import authority
from sim.cmc_actors import Cmc

FAMILIES = {"cmc", "cms", "certificate", "chain", "key", "signature"}
ROUNDS = 150


def served(device: Cmc, spoil: Callable[[bytes], bytes]) -> Callable[[HttpRequest], HttpResponse]:
    def serve(asked: HttpRequest) -> HttpResponse:
        answer = device.bench.site.answer("plain", asked, Peer((), ())).response
        return replace(answer, body=spoil(answer.body))

    return serve


def inside(device: Cmc, source: random.Random) -> Callable[[bytes], bytes]:
    """Spoil the PKIResponse, and sign that as the authority would."""

    def spoil(body: bytes) -> bytes:
        fields = cms_reading.signed_data(body, limit=1 << 20)
        assert fields.content is not None
        by = authority(device.world)
        others = cms.open_signed(body).certificates
        return cms.sign(edited(fields.content, source), words.PKI_RESPONSE, by.key, by.certificate, others)

    return spoil


def test_answers_spoilt_outside_are_refused_or_say_the_same() -> None:
    device, source = Cmc.make(), random.Random(10002)
    request = device.request()
    issued = device.issued(request)
    now = device.bench.time.moment()
    spoil = served(device, lambda body: edited(body, source))
    outcomes = [carried(device.protocol.enroll(request, None, now), spoil) for _ in range(ROUNDS)]
    codes = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert {code.split(".")[0] for code in codes} <= FAMILIES
    assert all(outcome == issued for outcome in outcomes if not isinstance(outcome, str))
    assert len(codes) > ROUNDS * 9 // 10


@pytest.mark.parametrize("policy", [CmcPolicy(), CmcPolicy(polls=10**6), CmcPolicy(confirm=True)])
def test_answers_spoilt_inside_lead_to_nothing_but_outcomes_and_named_errors(policy: CmcPolicy) -> None:
    device, source = Cmc.make(policy=policy), random.Random(10003)
    request = device.request()
    honest = device.run(device.protocol.enroll(request, None, device.bench.time.moment()))
    now = device.bench.time.moment()
    for _ in range(ROUNDS):
        outcome = carried(device.protocol.enroll(request, None, now), served(device, inside(device, source)))
        if isinstance(outcome, str):
            assert outcome.split(".")[0] in FAMILIES
        elif isinstance(outcome, Issued):
            assert outcome.chain[0].public_key() == device.bench.key.public_key()
        else:
            assert isinstance(outcome, Pending | Rejected)
            assert type(outcome) is Rejected or type(honest) is Pending or policy.polls


def test_spoilt_requests_do_not_fell_the_simulator() -> None:
    device, source = Cmc.make(secret=True), random.Random(10004)
    exchange = device.protocol.enroll(device.request(), None, device.bench.time.moment())
    asked = next(exchange)
    exchange.close()
    for _ in range(ROUNDS):
        spoilt = replace(asked, body=edited(asked.body, source))
        status = device.bench.site.answer("plain", spoilt, Peer((), ())).response.status
        assert status in {200, 400, 413}
    assert len(device.world.issued) <= 1, "at most the honest request, in which nothing was changed"


OIDS = st.sampled_from([f"1.3.6.1.5.5.7.7.{n}" for n in range(1, 38)])
VALUES = st.one_of(
    st.binary(max_size=24).map(der.octets),
    st.integers(-5, 2**40).map(der.integer),
    st.text(st.characters(codec="utf-8"), max_size=12).map(der.text),
    st.binary(max_size=24).map(der.sequence),
    st.integers(0, 9).map(lambda n: der.sequence(der.integer(n), der.sequence(der.integer(1)))),
)
_SHARED: list[Cmc] = []


def shared() -> Cmc:
    if not _SHARED:
        _SHARED.append(Cmc.make())
    return _SHARED[0]


@given(st.lists(st.tuples(OIDS, st.lists(VALUES, max_size=2)), max_size=8))
def test_any_controls_under_a_good_signature(controls: list[tuple[str, list[bytes]]]) -> None:
    device = shared()
    by = authority(device.world)
    numbered = tuple(Control(n, oid, tuple(values)) for n, (oid, values) in enumerate(controls, 1))
    made = cms.sign(PkiResponse(numbered).encode(), words.PKI_RESPONSE, by.key, by.certificate, by.chain[1:])
    answer = HttpResponse(200, (("Content-Type", "application/pkcs7-mime"),), made)
    outcome: Any = carried(
        device.protocol.enroll(device.request(), None, device.bench.time.moment()), lambda _: answer
    )
    assert isinstance(outcome, str), "nothing good comes of an answer to nobody's request"
    assert outcome.split(".")[0] in FAMILIES


PARTS = st.lists(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4
)


@given(PARTS.map(tuple), st.text(st.characters(codec="utf-8"), max_size=20), st.integers(0, 2000))
def test_what_is_written_is_read(parts: tuple[tuple[int, ...], ...], text: str, reason: int) -> None:
    made = StatusInfo(words.Status.FAILED, parts, text, reason)
    assert read_status(made.encode()) == made


@given(st.binary(max_size=400))
def test_any_message(data: bytes) -> None:
    for read in (messages.read_data, messages.read_response):
        for each in (data, der.sequence(data), der.sequence(*(der.sequence(data),) * 4)):
            try:
                read(each)
            except HoldfastError as error:
                assert error.code.startswith("cmc.")  # noqa: PT017 - no error may be right, too


ANSWERS = st.tuples(st.sampled_from([200, 200, 202, 302, 404, 429, 500, 999]), st.binary(max_size=200))


@given(ANSWERS)
def test_any_answer(answer: tuple[int, bytes]) -> None:
    device = shared()
    exchange = device.protocol.enroll(device.request(), None, device.bench.time.moment())
    outcome = carried(exchange, lambda _: HttpResponse(answer[0], (), answer[1]))
    assert outcome.split(".")[0] in FAMILIES
