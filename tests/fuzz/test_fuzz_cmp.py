"""Whatever a CMP server answers, only named errors and outcomes come out, and nothing spoilt is issued.

``make test`` meets a few thousand mutants; ``make proof-cmp`` 100,000, and with ``FULL=1`` a million.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import cmp_mutants
from holdfast.wire import der
from holdfast.wire.cmp.message import parse
from holdfast.wire.cmp.template import encode_wishes, read_wishes
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import CsrTemplate, HttpResponse, Issued, KeyAlgorithm, Moved, Pending, Rejected
from holdfast_sim.cmp_desk import CmpPolicy
from sim.cmp_actors import Cmp

MUTANTS = int(os.environ.get("CMP_MUTANTS", "4000"))
MOST_MESSAGES = 12


def test_mutants_of_every_message_meet_every_reader(record_property: Callable[[str, object], None]) -> None:
    told = cmp_mutants.run(MUTANTS, seed=int(os.environ.get("CMP_SEED", "20261124")))
    assert told["mutants"] == MUTANTS
    assert int(str(told["read"])) > MUTANTS // 10, "the mutants are too wild to get anywhere"
    record_property("mutants", MUTANTS)


def test_a_reader_that_lets_something_escape_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(_: bytes) -> object:
        raise IndexError("not of the family")

    monkeypatch.setitem(cmp_mutants._READERS, parse(cmp_mutants.seeds()[0]).kind, (careless,))
    with pytest.raises(IndexError):
        cmp_mutants.run(2000, seed=1)


def spoil(cmp: Cmp, chance: random.Random) -> None:
    """One answer for certain, and another now and then, comes spoilt."""
    at, answered, answer = chance.randrange(5), [0], cmp.bench.site.answer

    def spoiling(*arguments: Any) -> Any:
        found = answer(*arguments)
        answered[0] += 1
        if answered[0] - 1 != at and chance.random() < 0.9:
            return found
        body = cmp_mutants.mutant(found.response.body, chance)
        return replace(found, response=HttpResponse(found.response.status, found.response.headers, body))

    cmp.bench.site.answer = spoiling  # type: ignore[method-assign]


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_spoilt_answer_ends_an_exchange_by_name_and_issues_nothing_else(seed: int, *, secret: bool) -> None:
    chance = random.Random(seed)
    for policy in (
        CmpPolicy(),
        CmpPolicy(implicit_confirm=True),
        CmpPolicy(polls=1),
        CmpPolicy(other_polls=1),
    ):
        cmp = Cmp.make(policy=policy, secret=secret)
        if secret:
            assert cmp.protocol.secret is not None
            cheap = replace(cmp.protocol.secret, iterations=100)
            cmp.protocol = replace(cmp.protocol, secret=cheap)
        spoil(cmp, chance)
        try:
            outcome = cmp.enroll()
        except HoldfastError:
            continue
        assert isinstance(outcome, Issued | Pending | Rejected | Moved)
        if isinstance(outcome, Issued):
            assert outcome.chain[0] == cmp.world.issued[-1].certificate
        assert len(cmp.sent) <= MOST_MESSAGES


@given(st.binary(max_size=400))
def test_any_octets_as_a_token(token: bytes) -> None:
    cmp = _TOKENS
    with pytest.raises(HoldfastError, match=r"cmp\.resume"):
        cmp.resume(cmp.request(), Pending(_WAIT, token))


@given(st.binary(max_size=200))
def test_any_octets_as_wishes_and_messages(data: bytes) -> None:
    for read in (read_wishes, parse):
        with suppress(HoldfastError):
            read(data)


@given(
    st.integers(min_value=-(2**200), max_value=2**200),
    st.lists(st.integers(min_value=0, max_value=127), unique=True),
    st.binary(max_size=300),
    st.lists(st.integers(min_value=0, max_value=2**70), min_size=1, max_size=6),
)
def test_what_is_written_is_read(number: int, bits: list[int], octets: bytes, arcs: list[int]) -> None:
    dotted = ".".join(map(str, (1, 3, *arcs)))
    written = der.sequence(
        der.integer(number), der.named_bits(*bits), der.octets(octets), der.bits(octets), der.oid(dotted)
    )
    cursor = der.read_one(written)
    assert cursor.integer() == number
    assert cursor.named_bits() == frozenset(bits)
    assert cursor.octets() == cursor.bits() == octets
    if len(der.oid(dotted)) <= 66:
        assert cursor.oid() == dotted


@given(
    st.sampled_from([None, *KeyAlgorithm]),
    st.lists(st.tuples(st.sampled_from(["2.5.4.3", "2.5.4.10"]), st.none() | st.text("abc ", min_size=1))),
    st.lists(st.sampled_from(["2.5.29.17", "2.5.29.37", "1.2.3"]), unique=True),
)
def test_wishes_survive(key: Any, subject: list[tuple[str, str | None]], fill: list[str]) -> None:
    wishes = CsrTemplate(key=key, subject=tuple(subject) or None, fill_extensions=tuple(fill))
    assert read_wishes(encode_wishes(wishes)) == wishes


_TOKENS = Cmp.make()
_WAIT = _TOKENS.protocol.limits.shortest_wait
