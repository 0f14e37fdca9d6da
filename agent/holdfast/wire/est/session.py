"""One EST request to its final answer: HTTP authentication and redirects (RFC 7030 §3.2.1, §3.2.3).

Credentials are answered only to a server that TLS has authenticated, once, and once more if the server
says that nothing but its nonce was stale. A redirect inside the origin is followed on the same link with
the same method; a redirect elsewhere is the caller's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import (
    Challenge,
    HttpCredentials,
    absolute_location,
    basic,
    challenges,
    digest,
    same_origin_target,
    strongest,
)
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, Moved, RandomBytes, TlsInfo

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class EstLimits:
    """Bounds of one conversation. ``body`` in octets; a wait that a server asks for is clamped.

    Issued and CA certificates together stay within what path validation takes (``chain.MAX_CHAIN``).
    """

    body: int = 1 << 20
    ca_certificates: int = 16
    issued_certificates: int = 4
    redirects: int = 3
    shortest_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(days=4)
    default_wait: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Session:
    """How to converse with one server over one link. ``random`` is needed with credentials only."""

    tls: TlsInfo
    credentials: HttpCredentials | None
    random: RandomBytes | None
    limits: EstLimits

    def ask(self, request: HttpRequest) -> Exchange[HttpResponse | Moved]:
        """The answer that is neither a redirect nor a challenge that we can meet; a final 401 comes back.

        Raises LocalProtocolError ``est.not-authenticated``; RemoteProtocolError ``est.body-size``,
        ``est.redirects``, ``est.redirect-method``, ``http.location``, ``http.challenge``.
        """
        challenge: Challenge | None = None
        nonce_count = answers = redirects = 0
        while True:
            nonce_count += 1
            resp = yield self._with_authorization(request, challenge, nonce_count)
            self._check_size(resp)
            if resp.status == 401:
                if self.credentials is None or (found := strongest(challenges(resp))) is None:
                    return resp
                stale = found.scheme == "digest" and found.get("stale").lower() == "true"
                answers += 1
                if answers > 2 or (answers == 2 and not stale):
                    return resp
                challenge, nonce_count = found, 0
            elif resp.status in _REDIRECTS:
                redirects += 1
                if redirects > self.limits.redirects:
                    detail = f"more than {self.limits.redirects} in a row"
                    raise RemoteProtocolError("est.redirects", detail, clause="RFC 7030 §3.2.1")
                followed = self._redirected(request, resp)
                if isinstance(followed, Moved):
                    return followed
                request = followed
            else:
                return resp

    def _with_authorization(
        self, request: HttpRequest, challenge: Challenge | None, nonce_count: int
    ) -> HttpRequest:
        if challenge is None or self.credentials is None:
            return request
        if not self.tls.authenticated:
            detail = "the server wants a password, but it has not proved who it is"
            raise LocalProtocolError("est.not-authenticated", detail, clause="RFC 7030 §3.2.3")
        user, secret = self.credentials.username, self.credentials.password
        if challenge.scheme == "basic":
            value = basic(user, secret)
        else:
            if self.random is None:
                raise LocalProtocolError("est.no-random", "Digest needs a source of randomness")
            value = digest(
                challenge,
                user,
                secret,
                request.method,
                request.target,
                cnonce=self.random(16).hex(),
                nc=nonce_count,
            )
        return replace(request, headers=(*request.headers, ("Authorization", value)))

    def _redirected(self, request: HttpRequest, resp: HttpResponse) -> HttpRequest | Moved:
        location = (resp.header("Location") or "").strip()
        target = same_origin_target(location, self.tls.origin, base=request.target)
        if target is None:
            return Moved(absolute_location(location, self.tls.origin, base=request.target))
        if resp.status == 303 and request.method != "GET":
            detail = "303 would turn the enrollment into a GET"
            raise RemoteProtocolError("est.redirect-method", detail, clause="RFC 9110 §15.4.4")
        return replace(request, target=target)

    def _check_size(self, resp: HttpResponse) -> None:
        if len(resp.body) > self.limits.body:
            detail = f"{len(resp.body)} octets, limit {self.limits.body}"
            raise RemoteProtocolError("est.body-size", detail)
