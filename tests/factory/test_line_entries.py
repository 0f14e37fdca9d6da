"""The canonical form of an entry, and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import LocalProtocolError, StateCorrupt
from holdfast_factory.line.entries import GENESIS, Fact, Kind, canonical, digest, link, read_body

AT = "2026-11-24T08:00:00.000000Z"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=4)


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    """Strings as in the RFC's §3.2.2 example, members in the order of §3.2.3."""
    value = {
        "string": '€$\x0f\nA\'B"\\\\"/',
        "literals": [None, True, False],
        "\r": "Carriage Return",
        "1": "One",
        "\x80": "x",
    }
    del value["\x80"]  # the RFC sorts it by UTF-16; our members are ASCII
    expected = (
        '{"\\r":"Carriage Return","1":"One","literals":[null,true,false],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(value) == expected


@given(BODIES)
def test_what_is_written_reads_back_and_has_one_form(body: dict[str, object]) -> None:
    text = canonical(body)  # type: ignore[arg-type]
    assert read_body(text) == body
    with pytest.raises(StateCorrupt):
        read_body(" " + text)


@given(BODIES, st.integers(1, 2**53 - 1), TEXT)
def test_an_auditor_needs_only_a_json_library(body: dict[str, object], seq: int, station: str) -> None:
    entry = link(Fact(Kind.DONE, station, "ab" * 32, "keys", body=body), seq, AT, GENESIS)  # type: ignore[arg-type]
    members = {
        "seq": seq, "at": AT, "station": station, "unit": "ab" * 32, "kind": "step.done", "step": "keys",
        "code": "", "body": body, "previous": GENESIS,
    }  # fmt: skip
    octets = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert entry.hash == hashlib.sha256(octets).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [
        {"seq": 8}, {"at": AT.replace("24", "25")}, {"station": "B"}, {"unit": "cd" * 32},
        {"kind": "step.failed"}, {"step": "lock"}, {"code": "x"}, {"body": '{"a":2}'}, {"previous": "1" * 64},
    ],
)  # fmt: skip
def test_each_part_of_an_entry_is_hashed(changed: dict[str, object]) -> None:
    entry = link(Fact(Kind.DONE, "A", "ab" * 32, "keys", body={"a": 1}), 7, AT, GENESIS)
    assert digest(entry) == entry.hash
    assert digest(replace(entry, **changed)) != entry.hash  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [1.0, 2**53, -(2**53), "\ud800", "a\0", {"ä": 1}, b"octets", [[[[[[[[[[1]]]]]]]]]]],
    ids=["float", "great", "small", "surrogate", "nul", "member", "octets", "deep"],
)
def test_what_has_no_single_form_is_refused(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        canonical({"a": value})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "text", ['{"a":1.0}', '{"a":NaN}', '{"a":1,"a":1}', "[]", "{", '{"b":1,"a":1}', "[" * 9999]
)
def test_a_body_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(StateCorrupt):
        read_body(text)


def test_a_body_has_a_bound() -> None:
    with pytest.raises(LocalProtocolError):
        link(Fact(Kind.DONE, "A", body={"a": "x" * 20_000}), 1, AT, GENESIS)
