"""What an ACME server tells, as frozen records: directory, order, authorization, challenge, problem.

Unknown members are ignored (RFC 8555 §7.1), wrong types are errors that name the member. Sizes are bounded
before anything is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeVar

import msgspec

from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.http import media_type, printable
from holdfast.wire.model import HttpResponse

JSON_LIMIT: Final = 128 * 1024
MOST_AUTHORIZATIONS: Final = 100
MOST_CHALLENGES: Final = 20
URL_LIMIT: Final = 2048
URN: Final = "urn:ietf:params:acme:error:"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Meta:
    """What the server says of itself (RFC 8555 §7.1.1, profiles draft §3)."""

    termsOfService: str | None = None  # noqa: N815 - the members' names are the wire's
    externalAccountRequired: bool = False  # noqa: N815
    profiles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Directory:
    """Where everything is. ``renewalInfo``: RFC 9773."""

    newNonce: str  # noqa: N815
    newAccount: str  # noqa: N815
    newOrder: str  # noqa: N815
    revokeCert: str | None = None  # noqa: N815
    keyChange: str | None = None  # noqa: N815
    renewalInfo: str | None = None  # noqa: N815
    meta: Meta = Meta()


@dataclass(frozen=True, slots=True)
class Identifier:
    """``type`` is ``dns``, ``ip``, ``permanent-identifier`` or ``hardware-module``."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 7807 document. ``type`` is kept whole; :attr:`kind` is the ACME error without its namespace."""

    type: str = "about:blank"
    detail: str = ""
    status: int | None = None

    @property
    def kind(self) -> str:
        return self.type.removeprefix(URN) if self.type.startswith(URN) else ""

    def __str__(self) -> str:
        return printable(f"{self.kind or self.type}: {self.detail}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove an identifier (RFC 8555 §7.1.5). ``token`` is checked when it is read."""

    type: str
    url: str
    status: Literal["pending", "processing", "valid", "invalid"]
    token: str = ""
    error: Problem | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the server wants to see before it believes an identifier (RFC 8555 §7.1.4)."""

    identifier: Identifier
    status: Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
    challenges: tuple[Challenge, ...]
    wildcard: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate on its way (RFC 8555 §7.1.3)."""

    status: Literal["pending", "ready", "processing", "valid", "invalid"]
    authorizations: tuple[str, ...]
    finalize: str
    identifiers: tuple[Identifier, ...] = ()
    certificate: str | None = None
    error: Problem | None = None


@dataclass(frozen=True, slots=True)
class Window:
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When the server would like to see a renewal (RFC 9773 §4.2)."""

    suggestedWindow: Window  # noqa: N815
    explanationURL: str | None = None  # noqa: N815


def read(resp: HttpResponse, kind: type[T], what: str, *, clause: str) -> T:
    """The JSON body as *kind*. Raises RemoteProtocolError (``acme.too-large``, ``acme.type``,
    ``acme.syntax``)."""
    if len(resp.body) > JSON_LIMIT:
        raise RemoteProtocolError("acme.too-large", f"{what}: {len(resp.body)} octets, limit {JSON_LIMIT}")
    essence, _ = media_type(resp)
    if essence not in ("application/json", "application/problem+json"):
        raise RemoteProtocolError("acme.type", f"{what} is {printable(essence) or 'untyped'}", clause=clause)
    try:
        return msgspec.json.decode(resp.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError("acme.syntax", f"{what}: {error}"[:300], clause=clause) from error


def read_problem(resp: HttpResponse) -> Problem:
    """The problem document of an error answer; one made of the status where there is none."""
    essence, _ = media_type(resp)
    if essence in ("application/problem+json", "application/json") and len(resp.body) <= JSON_LIMIT:
        try:
            return msgspec.json.decode(resp.body, type=Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # the status says enough
    text = resp.body[:300].decode(errors="replace")
    return Problem(detail=printable(f"HTTP {resp.status} {text}"), status=resp.status)


def read_order(resp: HttpResponse) -> Order:
    """An order whose lists are bounded. Raises RemoteProtocolError as :func:`read`, and ``acme.order``."""
    order = read(resp, Order, "the order", clause="RFC 8555 §7.1.3")
    if not 1 <= len(order.authorizations) <= MOST_AUTHORIZATIONS:
        detail = f"{len(order.authorizations)} authorizations, expected 1 to {MOST_AUTHORIZATIONS}"
        raise RemoteProtocolError("acme.order", detail, clause="RFC 8555 §7.1.3")
    return order


def read_authorization(resp: HttpResponse) -> Authorization:
    """An authorization whose tokens are fit to be shown in public (RFC 8555 §8.1: base64url only)."""
    found = read(resp, Authorization, "the authorization", clause="RFC 8555 §7.1.4")
    if len(found.challenges) > MOST_CHALLENGES:
        raise RemoteProtocolError("acme.authorization", f"{len(found.challenges)} challenges")
    for challenge in found.challenges:
        if challenge.token and not _is_token(challenge.token):
            detail = f"the token of {printable(challenge.type, 40)} is not base64url"
            raise RemoteProtocolError("acme.token", detail, clause="RFC 8555 §8.1")
    return found


def _is_token(text: str) -> bool:
    return len(text) <= 512 and all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
