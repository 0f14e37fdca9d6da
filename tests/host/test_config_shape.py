"""The quick look at a configuration never says yes where the full validator says no, and knows good files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.host.config_schema import faults_of
from holdfast.host.config_shape import _KEYWORDS, fits, schema
from holdfast.host.config_yaml import Document, parse


def valid_by_the_library(data: Any) -> bool:
    return not faults_of(Document(data, {(): 1}, ()))


def examples() -> list[Any]:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    return [parse(block.split("```")[0]).data for block in page.split("```yaml\n")[1:]]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in *value*."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(deeper for key, child in children for deeper in paths(child, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    changed = copy.deepcopy(value)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = by
    return changed


SPOILT = (
    st.sampled_from(
        [None, True, 0, -1, 1.0, 10**12, float("nan"), "", "x" * 3000, [], {}, ["a", "a"], {"x": 1}]
    )
    | st.text(max_size=6)
    | st.lists(st.integers(0, 2) | st.booleans() | st.text(max_size=2), max_size=40)
    | st.dictionaries(st.sampled_from(["name", "est", "url", "handle", "file", "zz"]), st.text(max_size=3))
)


def test_the_documented_examples_need_no_schema_library() -> None:
    assert examples()
    for example in examples():
        assert fits(schema(), example)


@given(st.data())
def test_it_never_says_yes_where_the_library_says_no(data: st.DataObject) -> None:
    example = data.draw(st.sampled_from(examples()))
    for _ in range(data.draw(st.integers(1, 2))):
        example = replaced(example, data.draw(st.sampled_from(paths(example))), data.draw(SPOILT))
    if fits(schema(), example):
        assert valid_by_the_library(example)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"registrars": []},
        {"registrars": ["a.example:1", "a.example:1"]},
        {"registrars": ["no port"]},
        {"registrars": "a.example:1"},
        {"clock": "sundial"},
        {"limits": {"connect-seconds": 0}},
        {"limits": {"connect-seconds": 301}},
        {"limits": {"connect-seconds": True}},
        {"keys": {"srk": 1.5}},
        {"keys": {"tcti": "NO"}},
        {"idevid": {"certificate": {}}},
        {"idevid": {"certificate": {"nv-index": 0x01C90200, "file": "x"}}},
        {"identities": [{"key": {}}]},
        {"identities": [{"name": "a", "subject": {"common-name": ""}}]},
        {"identities": [{"name": "a", "subject": {"common-name": "x" * 65}}]},
        {"identities": [{"name": "a"}] * 17},
        {"unknown": 1},
        {"proxy": None},
    ],
    ids=str,
)
def test_each_word_of_the_schema_is_minded(spoilt: dict[str, Any]) -> None:
    good = {"registrars": ["a.example:1"], "manufacturer": {"anchors": "a.pem"}}
    assert fits(schema(), good)
    assert not fits(schema(), {**good, **spoilt})
    assert not fits(schema(), {k: v for k, v in good.items() if k != "manufacturer"})


def test_a_word_that_it_does_not_know_is_left_to_the_library() -> None:
    assert not fits({"type": "string", "contentEncoding": "base64"}, "QQ==")
    assert not fits({"type": ["string", "null"]}, "x")
    assert not fits({"type": "string", "format": "unheard-of"}, "x")


def test_the_schema_uses_no_word_that_the_quick_look_does_not_know() -> None:
    """Else every command would load the schema library after all."""

    def words(node: Any) -> set[str]:
        children = [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
        return set(node).union(*map(words, children))

    assert words(schema()) <= _KEYWORDS.keys()
