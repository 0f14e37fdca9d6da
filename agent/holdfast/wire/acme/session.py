"""Signed requests on one connection: nonces, ``badNonce``, rate limits, origins (RFC 8555 §6).

Every request is a flattened JWS with a fresh nonce; reading is POST-as-GET. A server that refuses a nonce
gives the next one with its refusal, and is asked again a few times. Everything that the server names lies on
the origin that TLS has authenticated: anything else is refused, because an exchange has one connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from holdfast.wire.acme.jose import compact, jwk, sign
from holdfast.wire.acme.objects import URL_LIMIT, Directory, Problem, read, read_problem
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import printable, retry_after, same_origin_target
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, Moment, SigningKey, TlsInfo

JOSE: Final = "application/jose+json"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")
_CAPITALS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class AcmeLimits:
    """Bounds of one conversation: refused nonces in a row, octets of a certificate chain, waits."""

    nonces: int = 10
    body: int = 1 << 20
    certificates: int = 10
    alternates: int = 8
    shortest_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(days=1)
    default_wait: timedelta = timedelta(seconds=5)


class AcmeProblem(RemoteProtocolError):
    """The server answered with a problem document. ``kind`` is the ACME error name, or empty."""

    def __init__(self, problem: Problem, status: int, wait: timedelta | None) -> None:
        self.problem = problem
        self.kind = problem.kind
        self.status = status
        self.wait = wait
        busy = status >= 500 or self.kind in ("rateLimited", "serverInternal")
        code = f"acme.{_dashed(self.kind)}" if self.kind.isalnum() else f"acme.http-{status}"
        super().__init__(code, str(problem), clause="RFC 8555 §6.7", busy=busy, retry_after=wait)


class Session:
    """One conversation with one server over one link, signed by one account key, if there is one.

    ``kid`` is the account's URL once it is known; until then requests carry the key itself. Not frozen: the
    nonce that each answer brings is the state of the conversation.
    """

    def __init__(self, tls: TlsInfo | None, key: SigningKey | None, limits: AcmeLimits, now: Moment) -> None:
        if tls is None or not tls.authenticated:
            detail = "ACME needs a server that was authenticated first"
            raise LocalProtocolError("acme.not-authenticated", detail, clause="RFC 8555 §6.1")
        self._tls = tls
        self._key = key
        self._limits = limits
        self._now = now
        self._nonce: str | None = None
        self.directory: Directory | None = None
        self.kid: str | None = None

    @property
    def key(self) -> SigningKey:
        """What requests are signed with. Raises LocalProtocolError ``acme.no-account`` without one."""
        if self._key is None:
            raise LocalProtocolError("acme.no-account", "there is no account key to sign with")
        return self._key

    def rekey(self, key: SigningKey) -> None:
        """Sign with *key* from now on."""
        self._key = key

    def open(self, directory_target: str) -> Exchange[Directory]:
        """Read the directory at *directory_target* (origin-form)."""
        resp = yield HttpRequest("GET", directory_target, (("Accept", "application/json"),))
        if resp.status != 200:
            raise self._problem(resp)
        self.directory = read(resp, Directory, "the directory", clause="RFC 8555 §7.1.1")
        return self.directory

    def post(self, url: str, payload: object, *, accept: str = "application/json") -> Exchange[HttpResponse]:
        """The 2xx answer to *payload* (None: POST-as-GET). Raises AcmeProblem for every other answer."""
        for _ in range(self._limits.nonces):
            resp = yield from self.post_once(url, payload, accept=accept)
            if 200 <= resp.status < 300:
                return resp
            problem = self._problem(resp)
            if problem.kind != "badNonce":
                raise problem
        raise RemoteProtocolError(
            "acme.nonces", f"{self._limits.nonces} nonces in a row were refused", clause="RFC 8555 §6.5"
        )

    def post_once(self, url: str, payload: object, *, accept: str) -> Exchange[HttpResponse]:
        """One signed request with a nonce of its own; the answer as it is."""
        target = self.target(url)
        nonce = yield from self._fresh_nonce()
        who: dict[str, object] = {"kid": self.kid} if self.kid else {"jwk": jwk(self.key)}
        body = b"" if payload is None else compact(payload)
        signed = sign(self.key, {**who, "nonce": nonce, "url": url}, body)
        headers = (("Content-Type", JOSE), ("Accept", accept))
        resp = yield HttpRequest("POST", target, headers, signed)
        self._take_nonce(resp)
        return resp

    def get(self, url: str) -> Exchange[HttpResponse]:
        """An unsigned read: renewal information only (RFC 9773 §4.1)."""
        return (yield HttpRequest("GET", self.target(url), (("Accept", "application/json"),)))

    def target(self, url: str) -> str:
        """The origin-form target of *url*. Raises RemoteProtocolError ``acme.url`` if it is elsewhere."""
        found = same_origin_target(url, self._tls.origin) if len(url) <= URL_LIMIT else None
        if found is None or not url.startswith("https://"):
            detail = f"{printable(url)} is not on {self._tls.origin}"
            raise RemoteProtocolError("acme.url", detail, clause="RFC 8555 §6.1")
        return found

    def wait(self, resp: HttpResponse) -> timedelta:
        """How long to leave the server alone, within bounds."""
        asked = self.asked_wait(resp)
        wanted = self._limits.default_wait if asked is None else asked
        return min(max(wanted, self._limits.shortest_wait), self._limits.longest_wait)

    def asked_wait(self, resp: HttpResponse) -> timedelta | None:
        """What Retry-After says; None if it does not say so usably."""
        return retry_after(resp, self._now)

    def resource(self, name: str) -> str:
        """The directory's URL called *name*. Raises RemoteProtocolError ``acme.unsupported``."""
        url = getattr(self.directory, name, None)
        if not isinstance(url, str):
            raise RemoteProtocolError(
                "acme.unsupported", f"the server has no {name}", clause="RFC 8555 §7.1.1"
            )
        return url

    def _fresh_nonce(self) -> Exchange[str]:
        if self._nonce is None:
            resp = yield HttpRequest("HEAD", self.target(self.resource("newNonce")))
            self._take_nonce(resp)
            if resp.status >= 400:
                raise self._problem(resp)
        nonce, self._nonce = self._nonce, None
        if nonce is None:
            raise RemoteProtocolError("acme.nonce", "the server gave no Replay-Nonce", clause="RFC 8555 §7.2")
        return nonce

    def _take_nonce(self, resp: HttpResponse) -> None:
        nonce = resp.header("Replay-Nonce") or ""
        self._nonce = nonce if _NONCE.fullmatch(nonce) else None

    def _problem(self, resp: HttpResponse) -> AcmeProblem:
        asked = self.asked_wait(resp)
        problem = replace(read_problem(resp), status=resp.status)
        return AcmeProblem(problem, resp.status, None if asked is None else self.wait(resp))


def _dashed(kind: str) -> str:
    """``badCSR`` as ``bad-csr``: codes are dotted lower case."""
    return _CAPITALS.sub("-", kind).lower()
