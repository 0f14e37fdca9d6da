"""A look at CBOR from strangers before a decoder builds anything of it (RFC 8949).

The decoder's cost is then bounded by the octets that came: no deep nesting, no tags, which may stand for
dates, huge numbers or references, no lengths that promise more than there is.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

from holdfast.wire.errors import RemoteProtocolError

DEEPEST: Final = 8
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SHORT: Final = 24


def decode(data: bytes, *, limit: int) -> Any:
    """The one item that *data* holds. Raises RemoteProtocolError ``cbor.too-large``, ``cbor.malformed``."""
    if len(data) > limit:
        raise RemoteProtocolError("cbor.too-large", f"{len(data)} octets")
    if _end_of(data, 0, DEEPEST) != len(data):
        raise _malformed("octets follow the item")
    try:
        return cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:  # TypeError: a map's key may be anything
        raise _malformed(str(error)) from error


def _end_of(data: bytes, start: int, depth: int) -> int:
    """Where the item at *start* ends."""
    if depth == 0:
        raise _malformed("nested too deeply")
    kind, value, at = _head(data, start)
    if kind in {_BYTES, _TEXT}:
        at += value
        if at > len(data):
            raise _malformed("a string is longer than the message")
        return at
    if kind == _TAG:
        raise _malformed("a tag, which nothing here has")
    items = {_ARRAY: value, _MAP: 2 * value}.get(kind, 0)
    if items > len(data) - at:
        raise _malformed("more items than octets")
    for _ in range(items):
        at = _end_of(data, at, depth - 1)
    return at


def _head(data: bytes, start: int) -> tuple[int, int, int]:
    """Major type, argument, and where the head ends. Indefinite lengths count as malformed here."""
    if start >= len(data):
        raise _malformed("it ends inside an item")
    kind, short = data[start] >> 5, data[start] & 0x1F
    if short < _SHORT:
        return kind, short, start + 1
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(short)
    if size is None:
        raise _malformed(f"additional information {short}")
    end = start + 1 + size
    if end > len(data):
        raise _malformed("it ends inside a head")
    return kind, int.from_bytes(data[start + 1 : end], "big"), end


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError("cbor.malformed", what, clause="RFC 8949 §3")
