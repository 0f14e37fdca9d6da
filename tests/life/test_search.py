"""The order in which registrars are asked that anybody may have announced."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.life.search import (
    DISTRUST,
    MOST_CANDIDATES,
    MOST_REFUSALS,
    NO_SEARCH,
    Candidate,
    Refusal,
    Search,
    Source,
    next_up,
    proved,
    ranked,
    refused,
    took,
)
from holdfast.wire.discovery.announced import Announced, Role

NOW = datetime(2027, 6, 1, tzinfo=UTC)
ORDER = tuple(Source)


def place(
    host: str, source: Source = Source.MDNS, *, by: str = "", role: Role = Role.REGISTRAR, priority: int = 0
) -> tuple[Source, Announced]:
    return source, Announced(host, 443, role, by or host, priority)


def endpoints(*found: object, order: tuple[Source, ...] = ORDER, search: Search = NO_SEARCH) -> list[str]:
    return [each.endpoint.removesuffix(":443") for each in ranked(found, order, search, NOW)]


def refusal(host: str, *, distrusted: bool = True, at: datetime = NOW) -> Refusal:
    return Refusal(f"{host}:443", "voucher.signer-chain", "", at, distrusted)


def test_sources_go_by_the_configuration_and_not_by_who_was_first() -> None:
    found = (place("b", Source.GRASP), place("a", Source.MDNS), place("c", Source.DNS_SD))
    assert endpoints(*found) == ["c", "a", "b"]
    assert endpoints(*found, order=(Source.GRASP, Source.DNS_SD)) == ["b", "c"]


def test_announcers_take_turns() -> None:
    many = [place(f"evil{n}", by="evil") for n in range(4)]
    assert endpoints(*many, place("good"))[:2] == ["evil0", "good"]


def test_a_proxy_comes_before_a_registrar_and_priorities_count_within_an_announcer() -> None:
    assert endpoints(place("r"), place("p", role=Role.PROXY)) == ["p", "r"]
    assert endpoints(place("late", by="x", priority=9), place("soon", by="x", priority=1)) == ["soon", "late"]


def test_a_liar_comes_last_for_a_day_and_is_not_struck_off() -> None:
    search = Search(refusals=(refusal("a"),))
    assert endpoints(place("a", Source.LIST), place("b", Source.GRASP), search=search) == ["b", "a"]
    old = Search(refusals=(refusal("a", at=NOW - DISTRUST),))
    assert endpoints(place("a", Source.LIST), place("b", Source.GRASP), search=old) == ["a", "b"]
    busy = Search(refusals=(refusal("a", distrusted=False),))
    assert endpoints(place("a", Source.LIST), place("b", Source.GRASP), search=busy) == ["a", "b"]


def test_who_was_good_comes_first_even_if_nobody_announces_it() -> None:
    good = Candidate("good:443", Role.PROXY, Source.GRASP)
    assert endpoints(place("a", Source.LIST), search=Search(good=good)) == ["good", "a"]
    fallen = Search(good=good, refusals=(refusal("good"),))
    assert endpoints(place("a", Source.LIST), search=fallen) == ["a"]


def test_a_place_that_two_announce_is_tried_once() -> None:
    assert endpoints(place("a", by="x"), place("a", Source.GRASP, by="y")) == ["a"]


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(Source), st.integers(0, 9)), max_size=200))
def test_no_flood_makes_it_long(found: list[tuple[int, Source, int]]) -> None:
    told = endpoints(*(place(f"h{n}", source, by=f"x{by}") for n, source, by in found))
    assert len(told) == len(set(told)) <= MOST_CANDIDATES


def test_one_after_the_other_and_each_refusal_is_remembered() -> None:
    first, second = (Candidate(f"{name}:443", Role.PROXY, Source.MDNS) for name in "ab")
    search = Search(waiting=(first, second))
    search = took(search)
    assert took(search) == search
    assert next_up(search).endpoint == "a:443"
    search = refused(search, refusal("a"))
    assert next_up(search).endpoint == "b:443"
    search = proved(took(search))
    assert search.good.endpoint == "b:443"
    assert search.waiting == ()
    assert [each.endpoint for each in search.refusals] == ["a:443"]
    assert next_up(search) is None


def test_refusals_are_bounded_and_the_last_word_on_a_place_counts() -> None:
    search = Search()
    for n in range(100):
        search = refused(search, refusal(f"h{n % 50}", at=NOW + timedelta(seconds=n)))
    assert len(search.refusals) == MOST_REFUSALS
    assert search.refusal_of("h49:443").at == NOW + timedelta(seconds=99)
    assert proved(search) == search


@pytest.mark.parametrize("state", ["fresh", "after a power cut"])
def test_the_one_that_was_tried_is_not_forgotten(state: str) -> None:
    trying = Candidate("a:443", Role.PROXY, Source.MDNS)
    search = Search(trying=trying) if state != "fresh" else Search(waiting=(trying,))
    assert next_up(search) == trying
    assert took(search) == replace(search, trying=trying, waiting=())
