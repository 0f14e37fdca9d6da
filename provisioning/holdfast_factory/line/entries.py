"""An entry of the ledger, its one canonical form, and the hash that ties it to the entry before.

The hashed octets are the entry as JSON in the canonical form of RFC 8785: members sorted, no white space,
UTF-8. Numbers are integers below 2**53, so that every JSON library reads and writes the same. The member
``previous`` is the hash of the entry before, 64 zeros in the first one; ``hash`` itself is not among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from holdfast.wire.errors import LocalProtocolError, StateCorrupt

GENESIS: Final = "0" * 64
BODY_LIMIT: Final = 16 * 1024
_GREATEST: Final = 2**53 - 1

Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]


class Kind(StrEnum):
    """What an entry tells. The values stand in ledgers: none is ever renamed."""

    OPENED = "ledger.opened"
    STATION = "station.up"
    MET = "unit.met"
    RESUMED = "unit.resumed"
    BEGUN = "step.begun"
    DONE = "step.done"
    FAILED = "step.failed"
    RESERVED = "certificate.reserved"
    ISSUED = "certificate.issued"
    SEALED = "unit.sealed"
    PRINTED = "label.printed"
    BATCH_OUT = "batch.out"
    BATCH_IN = "batch.in"
    EXPORTED = "manifest.exported"
    CHECKPOINT = "ledger.checkpoint"


@dataclass(frozen=True, slots=True)
class Fact:
    """What someone wants written down. Absent parts are empty; ``code`` is the reason of a failure."""

    kind: Kind
    station: str
    unit: str = ""
    step: str = ""
    code: str = ""
    body: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in the ledger. ``at`` is UTC in the form of :func:`timestamp`; ``body`` is canonical JSON;
    hashes are SHA-256 in hex."""

    seq: int
    at: str
    station: str
    unit: str
    kind: str
    step: str
    code: str
    body: str
    previous: str
    hash: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """The body, read. Raises StateCorrupt ``ledger.body``."""
        return read_body(self.body)


def timestamp(at: datetime) -> str:
    """UTC with microseconds, always 27 characters, so that text sorts as time does."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """The inverse of :func:`timestamp`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def canonical(value: Json) -> str:
    """RFC 8785. Raises LocalProtocolError ``ledger.encoding`` for what has no single form here."""
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def link(fact: Fact, seq: int, at: str, previous: str) -> Entry:
    """The entry that says *fact* after the one whose hash is *previous*. Raises LocalProtocolError."""
    body = canonical(fact.body)
    if len(body) > BODY_LIMIT:
        raise LocalProtocolError("ledger.encoding", f"a body of {len(body)} characters")
    unhashed = Entry(
        seq, at, fact.station, fact.unit, str(fact.kind), fact.step, fact.code, body, previous, ""
    )
    return Entry(
        seq,
        at,
        fact.station,
        fact.unit,
        str(fact.kind),
        fact.step,
        fact.code,
        body,
        previous,
        digest(unhashed),
    )


def digest(entry: Entry) -> str:
    """The hash of *entry*, over everything but ``hash``. Raises StateCorrupt ``ledger.body``."""
    members: dict[str, Json] = {
        "seq": entry.seq,
        "at": entry.at,
        "station": entry.station,
        "unit": entry.unit,
        "kind": entry.kind,
        "step": entry.step,
        "code": entry.code,
        "body": read_body(entry.body),
        "previous": entry.previous,
    }
    return hashlib.sha256(canonical(members).encode()).hexdigest()


def read_body(text: str) -> dict[str, Any]:
    """Raises StateCorrupt ``ledger.body`` unless *text* is one JSON object in its canonical form."""
    try:
        found = json.loads(text)
        if isinstance(found, dict) and canonical(found) == text:
            return found
    except (ValueError, RecursionError, LocalProtocolError) as error:
        raise StateCorrupt("ledger.body", f"not canonical JSON: {error}", clause="RFC 8785") from error
    raise StateCorrupt("ledger.body", "not one object in canonical form", clause="RFC 8785")


def _check(value: object, depth: int) -> None:
    if depth > 8:
        raise LocalProtocolError("ledger.encoding", "nested more than 8 deep")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):  # bool among them
        if abs(value) > _GREATEST:
            raise LocalProtocolError("ledger.encoding", "an integer beyond 2**53 - 1", clause="RFC 7493")
    elif isinstance(value, Mapping):
        _check_names(value)
        for each in value.values():
            _check(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _check(each, depth + 1)
    elif value is not None:
        raise LocalProtocolError("ledger.encoding", f"a {type(value).__name__} has no canonical form")


def _check_names(members: Mapping[Any, object]) -> None:
    for name in members:
        # ASCII sorts alike by code points and by the UTF-16 units that RFC 8785 wants.
        if not isinstance(name, str) or not name.isascii():
            raise LocalProtocolError("ledger.encoding", f"the member {name!r} is not ASCII text")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise LocalProtocolError("ledger.encoding", "text with U+0000, which PostgreSQL does not store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError("ledger.encoding", "text with a lone surrogate") from error
