"""Several requests in one, as a registration authority sends them on (RFC 10002 §6.17)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import numbers, read_numbers
from holdfast.wire.cmc.messages import Content, Control, PkiData, PkiResponse
from holdfast.wire.errors import RemoteProtocolError


def bundle(requests: Iterable[bytes]) -> tuple[tuple[str, bytes], tuple[Content, ...]]:
    """The batchRequests control and the contents for *requests*: signed Full PKI Requests as they came."""
    contents = tuple(Content(number, each) for number, each in enumerate(requests, 1))
    return (words.BATCH_REQUESTS, numbers(tuple(c.number for c in contents))), contents


def bundled(data: PkiData) -> tuple[Content, ...]:
    """What a batch names. Raises RemoteProtocolError ``cmc.body-part`` where it is not there."""
    return _named(data.control(words.BATCH_REQUESTS), data.contents)


def answers(response: PkiResponse, asked: tuple[Content, ...]) -> Mapping[int, bytes]:
    """The answers in a batch by the number of their request; missing ones are still to come.

    An answer has the place that its request had. Raises RemoteProtocolError ``cmc.body-part`` for more
    answers than requests.
    """
    found = _named(response.control(words.BATCH_RESPONSES), response.contents)
    if len(found) > len(asked):
        detail = f"{len(found)} answers to {len(asked)} requests"
        raise RemoteProtocolError("cmc.body-part", detail, clause="RFC 10002 §6.17")
    return {request.number: each.cms for request, each in zip(asked, found, strict=False)}


def _named(control: Control | None, contents: tuple[Content, ...]) -> tuple[Content, ...]:
    if control is None:
        return ()
    there = {content.number: content for content in contents}
    wanted = read_numbers(control.value)
    if missing := set(wanted) - set(there):
        detail = f"the batch names body parts {sorted(missing)[:8]}, which are not there"
        raise RemoteProtocolError("cmc.body-part", detail, clause="RFC 10002 §6.17")
    return tuple(there[number] for number in wanted)
