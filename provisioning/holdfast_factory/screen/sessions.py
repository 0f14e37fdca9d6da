"""Sessions in the memory of the server: a restart logs everybody out, and nothing on disk can be stolen."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from holdfast_factory.screen.people import Role

LIFETIME: Final = 12 * 3600.0
"""Seconds: a long shift."""
MAX_SESSIONS: Final = 200
MAX_FAILURES: Final = 5
PAUSE: Final = 60.0
"""Seconds for which a name that failed MAX_FAILURES times is not tried again."""
_MAX_NAMES: Final = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody at the screen. ``form_token`` stands in every form and must come back with it (CSRF)."""

    name: str
    role: Role
    form_token: str
    ends: float


class Sessions:
    """All of them, by a random cookie. *clock* gives seconds that never go back."""

    def __init__(
        self, clock: Callable[[], float], random: Callable[[int], str] = secrets.token_urlsafe
    ) -> None:
        self._clock = clock
        self._random = random
        self._open: dict[str, Session] = {}
        self._failures: dict[str, tuple[int, float]] = {}

    def begin(self, name: str, role: Role) -> str:
        """A new session; returns its cookie. The oldest makes room if there are MAX_SESSIONS."""
        self._failures.pop(name, None)
        while len(self._open) >= MAX_SESSIONS:
            del self._open[next(iter(self._open))]
        cookie = self._random(32)
        self._open[cookie] = Session(name, role, self._random(32), self._clock() + LIFETIME)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of that *cookie*, unless it is over."""
        session = self._open.get(cookie)
        if session is not None and session.ends <= self._clock():
            del self._open[cookie]
            return None
        return session

    def end(self, cookie: str) -> None:
        """Log out."""
        self._open.pop(cookie, None)

    def wait(self, name: str) -> float:
        """Seconds until *name* may be tried again; 0 for now."""
        count, since = self._failures.get(name, (0, 0.0))
        left = since + PAUSE - self._clock()
        return left if count >= MAX_FAILURES and left > 0 else 0.0

    def failed(self, name: str) -> None:
        """One wrong password for *name*, be there such a person or not."""
        count, since = self._failures.pop(name, (0, 0.0))
        if since + PAUSE <= self._clock():
            count = 0
        while len(self._failures) >= _MAX_NAMES:
            del self._failures[next(iter(self._failures))]
        self._failures[name] = (count + 1, self._clock())


def same_token(session: Session, offered: str) -> bool:
    """Whether a form came from a page that we gave to this session."""
    return hmac.compare_digest(session.form_token.encode(), offered.encode())
