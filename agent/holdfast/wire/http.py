"""What our protocols need of HTTP semantics, without a connection.

Retry-After and dates (RFC 9110 §5.6.7, §10.2.3), media types, redirects inside one origin (RFC 6454),
and the Basic (RFC 7617) and Digest (RFC 7616) answers to a challenge.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.model import HttpResponse, Moment

LONGEST_WAIT: Final = timedelta(days=30)
"""No Retry-After is believed beyond this; callers usually clamp to less."""

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_IMF_DATE: Final = re.compile(r"[A-Za-z]{3}, (\d{2}) ([A-Za-z]{3}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT")
_RFC850_DATE: Final = re.compile(r"[A-Za-z]{6,9}, (\d{2})-([A-Za-z]{3})-(\d{2}) (\d{2}):(\d{2}):(\d{2}) GMT")
_ASCTIME_DATE: Final = re.compile(r"[A-Za-z]{3} ([A-Za-z]{3}) ([ \d]\d) (\d{2}):(\d{2}):(\d{2}) (\d{4})")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PARAMETER: Final = re.compile(rf"\s*({_WORD})\s*=\s*({_QUOTED}|{_WORD})\s*")
_SCHEME: Final = re.compile(rf"\s*({_WORD})(?=\s|,|$)")
_TOKEN68: Final = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_HEADER_LIMIT: Final = 8192


def http_date(text: str) -> datetime:
    """An HTTP-date in any of its three forms, aware UTC. Raises RemoteProtocolError ``http.date``."""
    try:
        if m := _IMF_DATE.fullmatch(text):
            day, month, year, hour, minute, second = m.groups()
        elif m := _RFC850_DATE.fullmatch(text):
            day, month, year, hour, minute, second = m.groups()
            year = str(int(year) + (1900 if int(year) >= 70 else 2000))
        elif m := _ASCTIME_DATE.fullmatch(text):
            month, day, hour, minute, second, year = m.groups()
        else:
            raise ValueError(text)
        number = _MONTHS.index(month.lower()) + 1
        return datetime(int(year), number, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC)
    except ValueError as e:
        raise RemoteProtocolError(
            "http.date", f"not an HTTP-date: {printable(text)}", clause="RFC 9110 §5.6.7"
        ) from e


def format_http_date(moment: datetime) -> str:
    """The IMF-fixdate form of an aware datetime."""
    utc = moment.astimezone(UTC)
    weekday = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[utc.weekday()]
    month = _MONTHS[utc.month - 1].capitalize()
    return f"{weekday}, {utc.day:02} {month} {utc.year:04} {utc:%H:%M:%S} GMT"


def retry_after(resp: HttpResponse, now: Moment) -> timedelta | None:
    """How long the server asks us to wait, in [0, LONGEST_WAIT]; None if it does not say so usably.

    The date form is measured against the response's own Date, so that neither clock matters. Without
    a Date it needs a trusted clock. A malformed value counts as absent: the header is advice only.
    """
    text = (resp.header("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), int(LONGEST_WAIT.total_seconds())))
    try:
        until = http_date(text)
    except RemoteProtocolError:
        return None
    start = _response_date(resp) or (now.now if now.trusted else None)
    if start is None:
        return None
    return min(max(until - start, timedelta(0)), LONGEST_WAIT)


def _response_date(resp: HttpResponse) -> datetime | None:
    try:
        return http_date((resp.header("Date") or "").strip())
    except RemoteProtocolError:
        return None


def media_type(resp: HttpResponse) -> tuple[str, dict[str, str]]:
    """Content-Type as (lower-case ``type/subtype``, parameters with lower-case names); empty if absent."""
    text = (resp.header("Content-Type") or "")[:_HEADER_LIMIT]
    essence, _, rest = text.partition(";")
    parameters: dict[str, str] = {}
    for part in re.findall(rf"{_WORD}\s*=\s*(?:{_QUOTED}|{_WORD})", rest):
        name, _, value = part.partition("=")
        parameters.setdefault(name.strip().lower(), _unquote(value.strip()))
    return essence.strip().lower(), parameters


def printable(text: str, limit: int = 300) -> str:
    """Text from a peer made fit for a log line: one line, no control characters, bounded."""
    shown = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def same_origin_target(location: str, origin: str, *, base: str = "/") -> str | None:
    """The origin-form target of *location* if it stays on *origin* (``https://host[:port]``), else None.

    *base* is the target of the request that was redirected. The fragment is dropped. Raises
    RemoteProtocolError ``http.location`` for anything that is not an https URL without user name.
    """
    url = absolute_location(location, origin, base=base)
    if _origin_of(url) != _origin_of(origin):
        return None
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def absolute_location(location: str, origin: str, *, base: str = "/") -> str:
    """*location* as an absolute https URL without fragment. Raises RemoteProtocolError ``http.location``."""
    if (
        not location
        or len(location) > 2048
        or not location.isascii()
        or not location.isprintable()
        or " " in location
    ):
        raise _bad_location(location)
    try:
        parts = urlsplit(urljoin(origin + base, location))
        usable = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
        usable = usable and parts.port != 0
    except ValueError as e:
        raise _bad_location(location) from e
    if not usable:
        raise _bad_location(location)
    return parts._replace(fragment="").geturl()


def _bad_location(location: str) -> RemoteProtocolError:
    detail = f"redirect to something else than an https URL: {printable(location)}"
    return RemoteProtocolError("http.location", detail, clause="RFC 7030 §3.2.1")


def _origin_of(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or 443


@dataclass(frozen=True, slots=True)
class HttpCredentials:
    """User name and password. The password never shows in a repr."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    def get(self, name: str, default: str = "") -> str:
        return self.parameters.get(name, default)


def challenges(resp: HttpResponse) -> tuple[Challenge, ...]:
    """Every challenge, in order. Raises RemoteProtocolError ``http.challenge`` for an unreadable one."""
    found: list[Challenge] = []
    for text in resp.header_all("WWW-Authenticate"):
        if len(text) > _HEADER_LIMIT:
            raise _bad_challenge(text)
        found += _parse_challenges(text)
    return tuple(found)


def _parse_challenges(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
        elif found and (m := _PARAMETER.match(text, at)):
            found[-1][1].setdefault(m[1].lower(), _unquote(m[2]))
            at = m.end()
        elif m := _SCHEME.match(text, at):
            found.append((m[1].lower(), {}))
            at = m.end()
            if not _PARAMETER.match(text, at) and (t := _TOKEN68.match(text, at)):
                at = t.end()
        else:
            raise _bad_challenge(text)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _bad_challenge(text: str) -> RemoteProtocolError:
    return RemoteProtocolError("http.challenge", printable(text), clause="RFC 9110 §11.6.1")


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def basic(user: str, secret: str) -> str:
    """The Authorization value for Basic. Raises LocalProtocolError ``http.credentials``."""
    _check_text(user, secret)
    if ":" in user:
        raise LocalProtocolError("http.credentials", "user name contains a colon", clause="RFC 7617 §2")
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def digest(
    challenge: Challenge, user: str, secret: str, method: str, target: str, *, cnonce: str, nc: int = 1
) -> str:
    """The Authorization value for Digest: MD5, SHA-256 and their -sess forms, with qop=auth or without qop.

    *nc* counts the requests made with this server nonce, from 1. Raises RemoteProtocolError
    ``http.challenge`` if the challenge asks for something else.
    """
    _check_text(user, secret)
    algorithm = challenge.get("algorithm", "MD5")
    base, session = algorithm.upper().removesuffix("-SESS"), algorithm.upper().endswith("-SESS")
    offered = [q.strip().lower() for q in challenge.get("qop").split(",") if q.strip()]
    realm, nonce = challenge.get("realm"), challenge.get("nonce")
    if base not in _HASHES or not nonce or (offered and "auth" not in offered) or _unsafe(realm + nonce):
        detail = f"algorithm {algorithm}, qop {offered}, nonce {'present' if nonce else 'missing'}"
        raise RemoteProtocolError("http.challenge", printable(detail), clause="RFC 7616 §3.3")
    h = _HASHES[base]
    ha1 = h(f"{user}:{realm}:{secret}")
    if session:
        ha1 = h(f"{ha1}:{nonce}:{cnonce}")
    ha2 = h(f"{method}:{target}")
    count = f"{nc:08x}"
    middle = f"{nonce}:{count}:{cnonce}:auth" if offered else nonce
    parts = [
        f"username={_quote(user)}" if user.isascii() else f"username*=UTF-8''{quote(user, safe='')}",
        f"realm={_quote(realm)}",
        f"nonce={_quote(nonce)}",
        f"uri={_quote(target)}",
        f"response={_quote(h(f'{ha1}:{middle}:{ha2}'))}",
    ]
    if "algorithm" in challenge.parameters:
        parts.append(f"algorithm={algorithm}")
    if offered or session:
        parts.append(f"cnonce={_quote(cnonce)}")
    if offered:
        parts += ["qop=auth", f"nc={count}"]
    if "opaque" in challenge.parameters and not _unsafe(challenge.get("opaque")):
        parts.append(f"opaque={_quote(challenge.get('opaque'))}")
    return "Digest " + ", ".join(parts)


def _md5(text: str) -> str:
    # Inside an authenticated TLS connection the digest only spares the server a stored password.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_HASHES: Final[Mapping[str, Callable[[str], str]]] = {"SHA-256": _sha256, "MD5": _md5}


def _unsafe(text: str) -> bool:
    return not text.isprintable()


def _check_text(user: str, secret: str) -> None:
    if _unsafe(user) or _unsafe(secret):
        raise LocalProtocolError("http.credentials", "user name or password contains a control character")


def strongest(found: tuple[Challenge, ...]) -> Challenge | None:
    """The best challenge that can be answered: Digest SHA-256, then Digest MD5, then Basic."""

    def rank(challenge: Challenge) -> int:
        algorithm = challenge.get("algorithm", "MD5").upper().removesuffix("-SESS")
        if challenge.scheme == "digest":
            return {"SHA-256": 3, "MD5": 2}.get(algorithm, 0)
        return int(challenge.scheme == "basic")

    best = max(found, key=rank, default=None)
    return best if best is not None and rank(best) else None
