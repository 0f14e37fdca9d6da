"""Whatever a worker prints or a client sends, the resident process reads it or refuses it, within bounds."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.workers import REPORT, SETTINGS
from effort import at_least
from holdfast.host.journal import encode
from holdfast.resident.reports import MAX_TEXT, Progress, Refusal, Report, UnusableError, read_line
from holdfast.resident.reports import Settings as Told
from holdfast.resident.varlink import MAX_MESSAGE, Connection, Peer
from host.test_journal import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def read(line: bytes) -> None:
    try:
        told = read_line(line)
    except UnusableError:
        return
    assert isinstance(told, Told | Progress | Report | Refusal)
    texts = [value for value in told if isinstance(value, str)]
    assert all(len(text) <= MAX_TEXT for text in texts)


@settings(max_examples=at_least(500))
@given(st.binary(max_size=300))
def test_any_bytes_of_a_worker(line: bytes) -> None:
    read(line)


def members(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside *value*."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        found += members(part, (*path, name))
    return found


@settings(max_examples=at_least(500))
@given(st.sampled_from([REPORT, SETTINGS]), st.data(), JSON)
def test_anything_in_the_place_of_any_member(told: Any, data: st.DataObject, value: Any) -> None:
    spoilt = json.loads(json.dumps(told))
    *way, last = data.draw(st.sampled_from(members(spoilt)))
    place = spoilt
    for step in way:
        place = place[step]
    place[last] = value
    read(json.dumps(spoilt).encode())


@settings(max_examples=at_least(300))
@given(st.lists(st.binary(min_size=1, max_size=9000), max_size=12))
def test_any_bytes_of_a_client_in_any_pieces(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, Peer(1, 1, frozenset()), 0.0)
        got: list[bytes] = []
        refused = False
        for piece in pieces:
            theirs.sendall(piece)
            connection.take(0.0)
            assert len(connection.received) <= 2 * MAX_MESSAGE + 9000
            try:
                while (message := connection.next_message()) is not None:
                    assert len(message) <= MAX_MESSAGE
                    got.append(message)
            except ValueError:
                refused = True
                break
    whole = b"".join(pieces).split(b"\0")[:-1]
    assert got == whole[: len(got)]
    if not refused:
        assert got == whole


@pytest.mark.parametrize("name", ["MESSAGE", "HOLDFAST_REASON"])
@settings(max_examples=at_least(300))
@given(text=st.text(max_size=200))
def test_any_text_stays_one_field_of_the_journal(name: str, text: str) -> None:
    told = parse(encode({name: text, "PRIORITY": "6"}))
    expected = {name: text.encode(errors="replace")} if text else {}
    assert told == {**expected, "PRIORITY": b"6"}
