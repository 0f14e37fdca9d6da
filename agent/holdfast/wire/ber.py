"""A bounded walk over BER, done before a lazy, recursive parser sees hostile bytes."""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 24  # a certificate inside a SignedData reaches 14
MAX_VALUES: Final = 50_000


def check_bounds(data: bytes, *, depth: int = MAX_DEPTH, values: int = MAX_VALUES) -> None:
    """Check that *data* is exactly one well-nested BER value, without recursion and in linear time.

    Definite and indefinite lengths are both taken (Bouncy Castle writes the latter for CMS). Tags above 30
    occur in no format here and are refused. Raises :class:`ValueError`.
    """
    ends: list[int | None] = []  # of the open constructed values; None where end-of-contents will close it
    at, count = 0, 0
    while True:
        count += 1
        if count > values:
            raise ValueError(f"more than {values} values")
        limit = next((end for end in reversed(ends) if end is not None), len(data))
        tag, length, at = _header(data, at, limit)
        if tag == 0 and length == 0 and ends and ends[-1] is None:
            ends.pop()
        elif tag & 0x20:
            if len(ends) == depth:
                raise ValueError(f"nested deeper than {depth}")
            ends.append(None if length is None else at + length)
        elif length is None:
            raise ValueError("a primitive value of indefinite length")
        else:
            at += length
        while ends and ends[-1] == at:
            ends.pop()
        if not ends:
            break
    if at != len(data):
        raise ValueError(f"{len(data) - at} octets of trailing data")


def _header(data: bytes, at: int, limit: int) -> tuple[int, int | None, int]:
    """Tag octet, content length (None: indefinite) and where the content starts."""
    if at + 2 > limit:
        raise ValueError("truncated")
    tag, first = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise ValueError("a tag above 30")
    at += 2
    if first == 0x80:
        return tag, None, at
    length = first
    if first > 0x80:
        size = first & 0x7F
        if size > 4 or at + size > limit:
            raise ValueError("an impossible length")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > limit:
        raise ValueError("truncated")
    return tag, length, at
