"""One private key on a token, as a signer for :mod:`holdfast.keys.hardware`.

The key is looked up for each use, so a token that comes back in another slot serves on. Every signature is
checked against the public key before it leaves: a token that was exchanged is noticed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from pkcs11 import MGF, Attribute, Mechanism

from holdfast.keys.api import KeyRef
from holdfast.keys.hardware import HASHES, HardwareEcKey, HardwareRsaKey, check_raw, cut_digest
from holdfast.keys.pkcs11_faults import BAD_CIPHERTEXT, NOT_OFFERED
from holdfast.keys.pkcs11_objects import PublicKey, Which, private_key, read
from holdfast.keys.pkcs11_pem import uri_pem
from holdfast.keys.pkcs11_session import TokenSession
from holdfast.keys.rsaoaep import decode_oaep
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import SigningKey

_DIGEST_INFO: Final = {  # RFC 8017 §9.2, note 1
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_OAEP: Final = {
    "sha1": (Mechanism.SHA_1, MGF.SHA1, None),
    "sha256": (Mechanism.SHA256, MGF.SHA256, None),
    "sha384": (Mechanism.SHA384, MGF.SHA384, None),
    "sha512": (Mechanism.SHA512, MGF.SHA512, None),
}


class Pkcs11Signer:
    """EcSigner and RsaSigner over one private key object."""

    def __init__(self, token: TokenSession, which: Which, public: PublicKey) -> None:
        self._token = token
        self._which = which
        self._public = public

    def sign_digest(self, digest: bytes) -> bytes:
        """As EcSigner."""
        public = self._public
        assert isinstance(public, ec.EllipticCurvePublicKey)
        cut, algorithm = cut_digest(digest, public)

        def sign(key: Any) -> bytes:
            raw = bytes(key.sign(cut, mechanism=Mechanism.ECDSA))
            r, s = (int.from_bytes(half, "big") for half in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
            return utils.encode_dss_signature(r, s)

        signature = self._sign(sign)
        scheme = ec.ECDSA(utils.Prehashed(algorithm))
        return _checked(signature, lambda: public.verify(signature, cut, scheme))

    def sign_pkcs1(self, algorithm: str, digest: bytes) -> bytes:
        public = self._rsa()
        block = _DIGEST_INFO[algorithm] + digest
        signature = self._sign(lambda key: bytes(key.sign(block, mechanism=Mechanism.RSA_PKCS)))
        scheme, prehashed = padding.PKCS1v15(), utils.Prehashed(HASHES[algorithm])
        return _checked(signature, lambda: public.verify(signature, digest, scheme, prehashed))

    def rsa_raw(self, block: bytes) -> bytes:
        """As RsaSigner. Raises KeyStoreError(``key.no-raw-rsa``) where the token has no CKM_RSA_X_509."""
        public = self._rsa()
        result = self._sign(lambda key: bytes(_raw(key.sign, block))).rjust(len(block), b"\0")
        return _checked(result, lambda: check_raw(public, block, result))

    def rsa_decrypt(self, ciphertext: bytes, oaep: str | None) -> bytes:
        """As RsaSigner. Raises KeyStoreError(``key.decrypt-failed``), which does not tell why."""
        if oaep is not None and oaep not in _OAEP:
            raise KeyStoreError("key.unsupported", f"OAEP with {oaep}")
        return self._token.run(
            "decrypt", lambda session: _decrypt(private_key(session, self._which), ciphertext, oaep)
        )

    def _sign(self, operation: Callable[[Any], bytes]) -> bytes:
        def sign(session: Any) -> bytes:
            key = private_key(session, self._which)
            if not read(key, Attribute.SIGN):
                raise KeyStoreError("key.unsupported", "this key does not sign")
            return operation(key)

        return self._token.run("sign", sign)

    def _rsa(self) -> rsa.RSAPublicKey:
        assert isinstance(self._public, rsa.RSAPublicKey)
        return self._public


def _checked(signature: bytes, check: Callable[[], None]) -> bytes:
    try:
        check()
    except InvalidSignature as error:
        raise KeyStoreError(
            "key.bad-signature", "the token's signature does not verify with the key's public half"
        ) from error
    return signature


def _raw(operation: Callable[..., bytes], block: bytes) -> bytes:
    try:
        return operation(block, mechanism=Mechanism.RSA_X_509)
    except NOT_OFFERED as error:
        raise KeyStoreError(
            "key.no-raw-rsa",
            "it signs with PKCS#1 v1.5 only; TLS 1.3 and PSS with RSA need its mechanism CKM_RSA_X_509",
        ) from error


def _decrypt(key: Any, ciphertext: bytes, oaep: str | None) -> bytes:
    if not read(key, Attribute.DECRYPT):
        raise KeyStoreError("key.cannot-decrypt", "this key does not decrypt")
    try:
        if oaep is None:
            return bytes(key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS))
        try:
            return bytes(
                key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=_OAEP[oaep])
            )
        except NOT_OFFERED:
            block = bytes(_raw(key.decrypt, ciphertext)).rjust(len(ciphertext), b"\0")
            return decode_oaep(block, oaep)
    except BAD_CIPHERTEXT:
        raise KeyStoreError("key.decrypt-failed", "the ciphertext is not for this key") from None


class Pkcs11Key:
    """A :class:`~holdfast.keys.api.Key` on a token, which other programs reach by its ``uri``."""

    def __init__(self, ref: KeyRef, token: TokenSession, which: Which, public: PublicKey, uri: str) -> None:
        self.ref = ref
        self.uri = uri
        signer = Pkcs11Signer(token, which, public)
        self._signer: SigningKey = (
            HardwareEcKey(signer, public)
            if isinstance(public, ec.EllipticCurvePublicKey)
            else HardwareRsaKey(signer, public)
        )

    def signer(self) -> SigningKey:
        return self._signer

    def reference_pem(self) -> bytes | None:
        """What OpenSSL's pkcs11 provider loads in place of a key file."""
        return uri_pem(self.uri)
