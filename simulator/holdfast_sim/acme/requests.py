"""Is this request signed by who it says, for this URL, just now? (RFC 8555 §6.2-6.5)"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Final

from holdfast.wire.acme.jose import b64, jwk, public_key, unb64, verify_signature
from holdfast.wire.algorithms import PublicKey
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse
from holdfast_sim.acme.state import Account, AcmeState
from holdfast_sim.answers import header, ok_json

URN: Final = "urn:ietf:params:acme:error:"
_STATUS: Final = {"badNonce": 400, "unauthorized": 403, "accountDoesNotExist": 400, "rateLimited": 429}


class Problem(Exception):
    """An answer in the form of RFC 7807."""

    def __init__(self, kind: str, detail: str, status: int | None = None) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.status = status or _STATUS.get(kind, 400)

    def document(self) -> dict[str, Any]:
        return {"type": URN + self.kind, "detail": self.detail, "status": self.status}

    def response(self) -> HttpResponse:
        body = json.dumps(self.document()).encode()
        return HttpResponse(self.status, (("Content-Type", "application/problem+json"),), body)


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified request. ``account`` is None where the request carried its own key."""

    key: PublicKey
    account: Account | None
    payload: bytes
    url: str

    def json(self) -> dict[str, Any]:
        """The payload as an object."""
        return _object(self.payload, "the payload")


def verify(state: AcmeState, request: HttpRequest, url: str) -> Signed:
    """Check everything about the JWS of *request*, which came to *url*. Raises Problem."""
    if (header(request, "Content-Type") or "").lower() != "application/jose+json":
        raise Problem("malformed", "expected application/jose+json", 415)
    outer = _object(request.body, "the body")
    protected = _protected(outer)
    nonce = protected.get("nonce")
    if not isinstance(nonce, str) or nonce not in state.nonces:
        raise Problem("badNonce", "the nonce was not issued here, or was used")
    state.nonces.discard(nonce)
    if protected.get("url") != url:
        raise Problem("unauthorized", f"signed for {protected.get('url')}, came to {url}", 401)
    if ("kid" in protected) == ("jwk" in protected):
        raise Problem("malformed", "exactly one of kid and jwk belongs into the header")
    account = None
    if "kid" in protected:
        account = state.accounts.get(str(protected["kid"]))
        if account is None or account.status != "valid":
            raise Problem("accountDoesNotExist", "no such account")
        key = account.key
    else:
        key = _key(protected["jwk"])
    payload = check_signature(outer, protected, key)
    return Signed(key, account, payload, url)


def check_signature(outer: dict[str, Any], protected: dict[str, Any], key: PublicKey) -> bytes:
    """The payload of a flattened JWS whose signature holds. Raises Problem."""
    try:
        signed = f"{outer['protected']}.{outer['payload']}".encode()
        verify_signature(key, protected.get("alg"), signed, unb64(str(outer["signature"])))
        return unb64(str(outer["payload"]))
    except (KeyError, HoldfastError) as error:
        raise Problem("malformed", f"the signature does not hold: {error}") from error


def check_binding(state: AcmeState, binding: object, account_key: PublicKey, url: str) -> str:
    """The key identifier of an external account binding that holds (RFC 8555 §7.3.4). Raises Problem."""
    if not isinstance(binding, dict):
        raise Problem("externalAccountRequired", "an external account binding is required", 403)
    protected = _protected(binding)
    kid = str(protected.get("kid"))
    secret = state.policy.external.get(kid)
    if secret is None or protected.get("alg") != "HS256" or "nonce" in protected:
        raise Problem("unauthorized", "no such external account, or a header that does not belong", 403)
    signed = f"{binding.get('protected')}.{binding.get('payload')}".encode()
    tag = hmac.new(secret, signed, hashlib.sha256).digest()
    bound = _object(unb64(str(binding.get("payload", ""))), "the bound key")
    held = hmac.compare_digest(b64(tag), str(binding.get("signature")))
    if not held or protected.get("url") != url or bound != jwk(account_key):
        raise Problem("unauthorized", "the external account binding does not hold", 403)
    return kid


def check_key_change(signed: Signed, url: str) -> PublicKey:
    """The new key of an account whose inner JWS holds (RFC 8555 §7.3.5). Raises Problem."""
    inner = signed.json()
    protected = _protected(inner)
    new_key = _key(protected.get("jwk"))
    claim = _object(check_signature(inner, protected, new_key), "the inner payload")
    account = signed.account
    if account is None or protected.get("url") != url or "nonce" in protected:
        raise Problem("malformed", "the inner header does not fit")
    if claim.get("account") != account.url or claim.get("oldKey") != jwk(account.key):
        raise Problem("malformed", "the inner payload names another account or key")
    return new_key


def answer(
    state: AcmeState, value: object, nonce: str, *headers: tuple[str, str], status: int = 200
) -> HttpResponse:
    """A JSON answer that brings the next nonce."""
    state.nonces.add(nonce)
    found = ok_json(value)
    return HttpResponse(status, (*found.headers, ("Replay-Nonce", nonce), *headers), found.body)


def _protected(outer: dict[str, Any]) -> dict[str, Any]:
    try:
        return _object(unb64(str(outer.get("protected", ""))), "the protected header")
    except HoldfastError as error:
        raise Problem("malformed", str(error)) from error


def _key(members: object) -> PublicKey:
    try:
        return public_key(members if isinstance(members, dict) else {})
    except HoldfastError as error:
        raise Problem("badPublicKey", str(error)) from error


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem("malformed", f"{what} is no JSON") from error
    if not isinstance(found, dict):
        raise Problem("malformed", f"{what} is no object")
    return found
