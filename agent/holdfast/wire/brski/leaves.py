"""Reading and writing YANG data as JSON (RFC 7951), bounded: nothing a peer sends may grow without limit.

Lenient in: unknown leaves are skipped, date-times may carry fractions and offsets, base64 may be wrapped,
integers and booleans may be quoted as the figures of RFC 8995 do. Every refusal is a
:class:`~holdfast.wire.errors.RemoteProtocolError` whose code names the leaf: ``voucher.serial-number``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

from holdfast.wire.errors import RemoteProtocolError

JSON_LIMIT: Final = 256 * 1024  # octets; a registrar request carries a whole pledge request in base64
JSON_DEPTH: Final = 16
TEXT_LIMIT: Final = 256  # characters of a serial number or nonce

_DATE_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,18})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def read_object(data: bytes, what: str, *, limit: int = JSON_LIMIT) -> dict[str, object]:
    """The JSON object in *data*. Codes start with *what*.

    Duplicate keys are refused: two readers of one voucher must not see two serial numbers.
    """
    if len(data) > limit:
        raise RemoteProtocolError(f"{what}.too-large", f"{len(data)} octets, at most {limit}")

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise RemoteProtocolError(f"{what}.duplicate-key", ascii(key[:80]), clause="RFC 8259 §4")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        raise RemoteProtocolError(f"{what}.json", f"{name} is not JSON", clause="RFC 8259 §6")

    try:
        text = data.decode("utf-8")
        _bound_depth(text, what)
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant)
    except ValueError as error:
        raise RemoteProtocolError(f"{what}.json", ascii(str(error))[:200], clause="RFC 8259") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{what}.json", "not an object")
    return value


def _bound_depth(text: str, what: str) -> None:
    """The parser recurses, so nesting is counted before it runs; brackets inside strings do not nest."""
    depth, in_string, escaped = 0, False, False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > JSON_DEPTH:
                raise RemoteProtocolError(f"{what}.too-deep", f"more than {JSON_DEPTH} levels")
        elif char in "]}":
            depth -= 1


def write_object(members: Mapping[str, object], *, wrapper: str | None = None) -> bytes:
    """Compact ASCII JSON without the members that are None, under the top-level member *wrapper* if given."""
    present: dict[str, object] = {name: value for name, value in members.items() if value is not None}
    whole = present if wrapper is None else {wrapper: present}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode("ascii")


def write_binary(value: bytes | None) -> str | None:
    """YANG ``binary``: standard base64 with padding (RFC 7950 §9.8.2)."""
    return None if value is None else base64.b64encode(value).decode("ascii")


def write_moment(value: datetime | None) -> str | None:
    """YANG ``date-and-time`` in UTC with milliseconds."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Leaves:
    """The members of one JSON object, read by kind. ``what`` is the prefix of every error code."""

    what: str
    members: Mapping[str, object]
    clause: str = "RFC 8366 §5.3"

    @classmethod
    def wrapped(cls, data: bytes, wrapper: str, what: str) -> Leaves:
        """The object under the top-level member *wrapper*, such as ``ietf-voucher:voucher``."""
        inner = read_object(data, what).get(wrapper)
        if not isinstance(inner, dict):
            raise RemoteProtocolError(f"{what}.wrapper", f"no object {wrapper}", clause="RFC 8366 §5.3")
        return cls(what, inner)

    def refuse(self, name: str, detail: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self.what}.{name}", detail, clause=self.clause)

    def text(self, name: str, *, limit: int = TEXT_LIMIT) -> str | None:
        """A string of 1 to *limit* characters, or None if the leaf is absent."""
        value = self.members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.refuse(name, f"a string is due, not {type(value).__name__}")
        if not 0 < len(value) <= limit:
            raise self.refuse(name, f"{len(value)} characters, 1 to {limit} are due")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise self.refuse(name, "half a surrogate pair")
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.refuse(name, "mandatory leaf is absent")
        return value

    def binary(self, name: str) -> bytes | None:
        """Octets from base64; white space between the characters is skipped."""
        value = self.text(name, limit=JSON_LIMIT)
        if value is None:
            return None
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.refuse(name, "not base64") from error

    def moment(self, name: str) -> datetime | None:
        """An aware datetime in UTC; fractions beyond microseconds are cut."""
        value = self.text(name)
        if value is None:
            return None
        if not _DATE_TIME.fullmatch(value):
            raise self.refuse(name, f"not a date-and-time: {value[:40]!a}")
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self.refuse(name, f"no such time: {value[:40]!a}") from error

    def boolean(self, name: str) -> bool | None:
        value = self.members.get(name)
        if value is None or isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        raise self.refuse(name, "a boolean is due")

    def integer(self, name: str) -> int | None:
        value = self.members.get(name)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            return int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9):
            return value
        raise self.refuse(name, "a small integer is due")
