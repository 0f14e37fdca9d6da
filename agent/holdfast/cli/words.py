"""Times, spans and lists as a person says them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def span(length: timedelta) -> str:
    """The two largest units that say something: ``3 d 4 h``, ``12 min``, ``0 s``."""
    rest = int(abs(length.total_seconds()))
    for place, (seconds, unit) in enumerate(_UNITS):
        if rest >= seconds:
            text = f"{rest // seconds} {unit}"
            if place + 1 < len(_UNITS):
                smaller, name = _UNITS[place + 1]
                more = rest % seconds // smaller
                text += f" {more} {name}" if more else ""
            return text
    return "0 s"


def relative(moment: datetime, now: datetime) -> str:
    """``in 3 d 4 h``, ``2 min ago`` or ``now``."""
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def when(moment: datetime, now: datetime) -> str:
    """A date, and how far away it is: ``2027-01-01T00:04:00Z (in 4 min)``."""
    return f"{timestamp(moment)} ({relative(moment, now)})"


def times(count: int, noun: str) -> str:
    """``1 failure``, ``3 failures``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def shown(text: str) -> str:
    """*text* without what could drive a terminal: much of it is in the words of strangers."""
    return "".join(c if c.isprintable() else " " for c in text)
