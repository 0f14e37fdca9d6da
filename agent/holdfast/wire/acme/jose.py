"""JSON Web Signatures as ACME uses them: flattened, one signature, keys in their hardware.

RFC 7515 (JWS), RFC 7517 and 7518 (keys and algorithms), RFC 7638 (thumbprint), RFC 8555 §6.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from holdfast.wire.algorithms import Digest, PublicKey, sign_data, verify
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import SigningKey

Json = Mapping[str, object]

_CURVES: Final[dict[str, tuple[str, str, int, type[Digest]]]] = {
    "secp256r1": ("ES256", "P-256", 32, hashes.SHA256),
    "secp384r1": ("ES384", "P-384", 48, hashes.SHA384),
}
"""Curve to algorithm, the curve's name in a JWK, octets of a coordinate, digest (RFC 7518 §3.4)."""


def b64(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The octets of unpadded base64url. Raises RemoteProtocolError ``acme.base64``."""
    try:
        if not text.isascii() or set(text) & set("+/= \r\n\t"):
            raise ValueError("not of the base64url alphabet")
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise RemoteProtocolError("acme.base64", str(error), clause="RFC 7515 §2") from error


def compact(value: object) -> bytes:
    """JSON without white space, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def jwk(key: SigningKey | PublicKey) -> dict[str, str]:
    """The public key as a JWK with its required members only. Raises LocalProtocolError ``acme.key``."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else key
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return {"e": b64(_octets(numbers.e)), "kty": "RSA", "n": b64(_octets(numbers.n))}
    _, curve, size, _ = _curve(public)
    point = public.public_numbers()
    return {
        "crv": curve,
        "kty": "EC",
        "x": b64(point.x.to_bytes(size, "big")),
        "y": b64(point.y.to_bytes(size, "big")),
    }


def thumbprint(key: SigningKey | PublicKey) -> str:
    """base64url of SHA-256 over the canonical JWK (RFC 7638 §3)."""
    canonical = json.dumps(jwk(key), separators=(",", ":"), sort_keys=True).encode()
    return b64(hashlib.sha256(canonical).digest())


def algorithm(key: SigningKey | PublicKey) -> str:
    """The JWS algorithm that *key* signs with."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "RS256"
    return _curve(key)[0]


def sign(key: SigningKey, protected: Json, payload: bytes) -> bytes:
    """A flattened JWS over *payload*; ``alg`` is added to the *protected* header.

    Costs one operation of the hardware. An empty payload is POST-as-GET (RFC 8555 §6.3).
    """
    head = b64(compact({"alg": algorithm(key), **protected}))
    body = b64(payload)
    signed = f"{head}.{body}".encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = sign_data(key, signed, hashes.SHA256())
    else:
        _, _, size, digest = _curve(key)
        r, s = decode_dss_signature(sign_data(key, signed, digest()))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return compact({"protected": head, "payload": body, "signature": b64(signature)})


def sign_hs256(secret: bytes, protected: Json, payload: bytes) -> dict[str, str]:
    """A flattened JWS under a shared secret: of an external account binding (RFC 8555 §7.3.4)."""
    head = b64(compact({"alg": "HS256", **protected}))
    body = b64(payload)
    tag = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return {"protected": head, "payload": body, "signature": b64(tag)}


def public_key(members: Mapping[str, object]) -> PublicKey:
    """The key of a JWK from a peer. Raises RemoteProtocolError ``acme.jwk``."""
    try:
        if members.get("kty") == "RSA":
            e, n = (int.from_bytes(unb64(str(members[name])), "big") for name in ("e", "n"))
            if not 2048 <= n.bit_length() <= 8192:
                raise ValueError(f"RSA key of {n.bit_length()} bits")
            return rsa.RSAPublicNumbers(e, n).public_key()
        curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[str(members["crv"])]
        x, y = (int.from_bytes(unb64(str(members[name])), "big") for name in ("x", "y"))
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (KeyError, ValueError, UnsupportedAlgorithm, RemoteProtocolError) as error:
        raise RemoteProtocolError("acme.jwk", f"unusable JWK: {error}"[:300], clause="RFC 7517 §4") from error


def verify_signature(key: PublicKey, stated: object, signed: bytes, signature: bytes) -> None:
    """Check a JWS signature by an asymmetric key. Raises TrustError ``signature.invalid``, and ``acme.jws``
    for another algorithm than the key's own (``none`` and MACs included, RFC 8555 §6.2)."""
    if stated != algorithm(key):
        raise TrustError("acme.jws", f"algorithm {stated!r} for a key of {algorithm(key)}"[:200])
    if isinstance(key, rsa.RSAPublicKey):
        verify(key, signature, signed, hashes.SHA256())
        return
    _, _, size, digest = _curve(key)
    if len(signature) != 2 * size:
        raise TrustError("acme.jws", f"{len(signature)} octets of signature, expected {2 * size}")
    r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
    verify(key, encode_dss_signature(r, s), signed, digest())


def _curve(key: SigningKey | PublicKey) -> tuple[str, str, int, type[Digest]]:
    name = getattr(getattr(key, "curve", None), "name", "")
    if name not in _CURVES:
        raise LocalProtocolError("acme.key", f"no JWS algorithm for a key on {name or 'no curve'}")
    return _CURVES[name]


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
