"""What was said on the wire: bounded, without secrets, for reading or as JSON lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from holdfast.wire.model import HttpRequest

from .answers import Answer, Peer

SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
REDACTED = "(redacted)"
MAX_ENTRIES = 1000
MAX_BODY_BYTES = 16 * 1024  # of each body; its true length is always noted

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One request with its answer. Bodies are text, or hexadecimal after ``hex:``."""

    at: str
    server: str
    client: str
    method: str
    target: str
    request_headers: Headers
    request_length: int
    request_body: str
    status: int
    response_headers: Headers
    response_length: int
    response_body: str
    faults: tuple[str, ...]
    dropped: bool

    def __str__(self) -> str:
        outcome = "connection dropped" if self.dropped else f"{self.status}, {self.response_length} bytes"
        faults = f"  [{', '.join(self.faults)}]" if self.faults else ""
        return f"{self.at} {self.server:11} {self.client}: {self.method} {self.target} -> {outcome}{faults}"


class Transcript:
    """The last *limit* entries."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self._entries: deque[Entry] = deque(maxlen=limit)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def add(self, at: datetime, server: str, peer: Peer, request: HttpRequest, answer: Answer) -> Entry:
        client = peer.certificate.subject.rfc4514_string() if peer.certificate else "anonymous"
        entry = Entry(
            at.isoformat(timespec="milliseconds"),
            server,
            client,
            request.method,
            request.target,
            _headers(request.headers),
            len(request.body),
            _body(request.body),
            answer.response.status,
            _headers(answer.response.headers),
            len(answer.response.body),
            _body(answer.response.body),
            answer.faults,
            answer.delivery.drop,
        )
        self._entries.append(entry)
        return entry

    def save(self, path: Path) -> None:
        """Write every entry as one line of JSON."""
        with path.open("w", encoding="utf-8") as file:
            for entry in self:
                file.write(json.dumps(asdict(entry)) + "\n")


def _headers(headers: Headers) -> Headers:
    return tuple((n, REDACTED if n.lower() in SECRET_HEADERS else v) for n, v in headers)


def _body(body: bytes) -> str:
    shown = body[:MAX_BODY_BYTES]
    try:
        text = shown.decode("ascii")
    except UnicodeDecodeError:
        return "hex:" + shown.hex()
    return text if all(c.isprintable() or c in "\r\n\t" for c in text) else "hex:" + shown.hex()
