"""Accounts: made or found again, bound to an outside account, moved to a new key, ended (RFC 8555 §7.3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.wire.acme.jose import compact, jwk, sign, sign_hs256, unb64
from holdfast.wire.acme.session import Session
from holdfast.wire.errors import ConfigError, RemoteProtocolError
from holdfast.wire.model import Exchange, SigningKey


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """What a CA gave out of band: a key identifier and a MAC key (RFC 8555 §7.3.4)."""

    kid: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, kid: str, text: str) -> ExternalAccount:
        """From the base64url text that CAs print. Raises ConfigError ``acme.eab``, which shows no secret."""
        try:
            secret = unb64(text.strip().rstrip("="))
        except RemoteProtocolError:
            secret = b""
        if not secret:
            raise ConfigError("acme.eab", f"the MAC key of {kid} is not base64url")
        return cls(kid, secret)


def enter(
    session: Session, *, contacts: Sequence[str] = (), external: ExternalAccount | None = None
) -> Exchange[str]:
    """The account's URL, of a new account or of the one that this key has already; repeating is harmless.

    Sets ``session.kid``. The operator accepts the terms of service by configuring the server. Raises
    RemoteProtocolError ``acme.account``, and AcmeProblem.
    """
    url = session.resource("newAccount")
    payload: dict[str, object] = {"termsOfServiceAgreed": True}
    if contacts:
        payload["contact"] = list(contacts)
    if external is not None:
        head = {"kid": external.kid, "url": url}
        payload["externalAccountBinding"] = sign_hs256(external.secret, head, compact(jwk(session.key)))
    resp = yield from session.post(url, payload)
    location = resp.header("Location") or ""
    if not location:
        raise RemoteProtocolError("acme.account", "the account has no Location", clause="RFC 8555 §7.3")
    session.target(location)
    session.kid = location
    return location


def change_key(session: Session, new_key: SigningKey) -> Exchange[None]:
    """Move the account to *new_key* (RFC 8555 §7.3.5). The session goes on under the new key."""
    url = session.resource("keyChange")
    claim = compact({"account": session.kid, "oldKey": jwk(session.key)})
    inner = json.loads(sign(new_key, {"jwk": jwk(new_key), "url": url}, claim))
    yield from session.post(url, inner)
    session.rekey(new_key)


def deactivate(session: Session) -> Exchange[None]:
    """End the account for good (RFC 8555 §7.3.6)."""
    if session.kid is None:
        raise RemoteProtocolError("acme.account", "no account was entered")
    yield from session.post(session.kid, {"status": "deactivated"})
