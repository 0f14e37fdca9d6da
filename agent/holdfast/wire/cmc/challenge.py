"""Proof of possession by decryption (RFC 10002 §6.7): the server hides a value, the client shows it."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import cms_enveloped
from holdfast.wire.cmc import proofs
from holdfast.wire.cmc.controls import DecryptedPop, EncryptedPop
from holdfast.wire.cmc.messages import Request
from holdfast.wire.errors import HoldfastError, LocalProtocolError, TrustError
from holdfast.wire.model import RandomBytes, SigningKey

LEAST: Final = 16
"""Octets of a hidden value: fewer could be guessed from their hash."""


def answer(
    challenge: EncryptedPop,
    request: Request,
    key: SigningKey,
    random: RandomBytes,
    *,
    identifier: bytes | None,
    sha1: bool = False,
) -> DecryptedPop:
    """Decrypt *challenge* about *request*, whose subject key identifier is *identifier* (None: it has none).

    Raises TrustError ``cmc.challenge`` for one that is about another request, does not open, or does not
    fit its witness (the enrollment ends then), ``cmc.algorithm``; LocalProtocolError
    ``cmc.key-cannot-decrypt``.
    """
    clause = "RFC 10002 §6.7"
    if challenge.request.encode() != request.encode():
        raise TrustError("cmc.challenge", "the challenge is about another request", clause=clause)
    if not isinstance(key, rsa.RSAPrivateKey):
        detail = "the server wants to see that the key decrypts, and it is no RSA key"
        raise LocalProtocolError("cmc.key-cannot-decrypt", detail, clause=clause)
    try:
        opener = cms_enveloped.WithRequestKey(key, identifier, request.number)
        value = cms_enveloped.open_enveloped(challenge.cms, opener, random)
    except HoldfastError as error:
        if not error.code.startswith("cms."):
            raise
        raise TrustError("cmc.challenge", f"the challenge does not open: {error}", clause=clause) from error
    digest = proofs.hash_of(challenge.digest, value, sha1=sha1)
    if len(value) < LEAST or not hmac.compare_digest(digest, challenge.witness):
        raise TrustError("cmc.challenge", "the challenge does not fit its witness", clause=clause)
    return DecryptedPop(request.number, challenge.mac, prove(challenge, value, request, sha1=sha1))


def prove(challenge: EncryptedPop, value: bytes, request: Request, *, sha1: bool = False) -> bytes:
    """The proof that *value* was seen, over *request*; both sides compute it."""
    return proofs.compute(challenge.mac, value[: proofs.MOST_SECRET], request.encode(), sha1=sha1)
