"""The server's side of Basic (RFC 7617) and Digest (RFC 7616), written apart from the client's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from holdfast.wire.model import HttpRequest

from .answers import Refused, header
from .world import World

REALM = "estrealm"
NONCE_USES = 64
MAX_NONCES = 256
_PAIR = re.compile(r'([a-zA-Z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def require_user(world: World, request: HttpRequest) -> str:
    """The authenticated user name. Raises Refused (401 with a challenge)."""
    scheme, _, rest = (header(request, "Authorization") or "").partition(" ")
    policy = world.est
    if policy.scheme == "basic" and scheme.lower() == "basic":
        user = _basic(world, rest)
    elif policy.scheme == "digest" and scheme.lower() == "digest":
        user = _digest(world, request, dict(_pairs(rest)))
    else:
        user = None
    if user is None:
        raise Refused(401, "authentication is required", *_challenges(world))
    return user


def _challenges(world: World) -> tuple[tuple[str, str], ...]:
    if world.est.scheme == "basic":
        return (("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"'),)
    if world.est.scheme is None:
        return ()
    nonce = base64.b64encode(world.random(18)).decode()
    world.nonces[nonce] = 0
    while len(world.nonces) > MAX_NONCES:
        del world.nonces[next(iter(world.nonces))]
    return tuple(
        ("WWW-Authenticate", f'Digest realm="{REALM}", qop="auth", algorithm={name}, nonce="{nonce}"')
        for name in world.est.algorithms
    )


def _basic(world: World, credentials: str) -> str | None:
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return None
    known = world.est.users.get(user)
    return user if colon and known is not None and _same(known, password) else None


def _digest(world: World, request: HttpRequest, given: dict[str, str]) -> str | None:
    algorithm, user = given.get("algorithm", "MD5"), given.get("username", "")
    password, nonce = world.est.users.get(user), given.get("nonce", "")
    digests = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}  # MD5: RFC 7616 still names it
    offered = digests.keys() & world.est.algorithms
    if password is None or algorithm not in offered or not _spend(world, nonce, given.get("nc", "")):
        return None
    if given.get("realm") != REALM or given.get("uri") != request.target or given.get("qop") != "auth":
        return None

    def h(text: str) -> str:
        return digests[algorithm](text.encode()).hexdigest()

    secret, what = h(f"{user}:{REALM}:{password}"), h(f"{request.method}:{request.target}")
    expected = h(f"{secret}:{nonce}:{given['nc']}:{given.get('cnonce', '')}:auth:{what}")
    return user if _same(expected, given.get("response", "")) else None


def _spend(world: World, nonce: str, count: str) -> bool:
    """A nonce is ours, and its count grows (RFC 7616 §3.4)."""
    if nonce not in world.nonces or not re.fullmatch(r"[0-9a-f]{8}", count):
        return False
    number = int(count, 16)
    if not world.nonces[nonce] < number <= NONCE_USES:
        return False
    world.nonces[nonce] = number
    return True


def _pairs(text: str) -> list[tuple[str, str]]:
    return [
        (name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else token)
        for name, quoted, token in _PAIR.findall(text)
    ]


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode())
