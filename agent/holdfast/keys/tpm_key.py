"""One private key in a TPM, as a signer for :mod:`holdfast.keys.hardware`.

Every signature is checked against the public key before it leaves: without a resource manager a TPM that
was reset may hold another process's key under the handle that we remember.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from tpm2_pytss import (
    TPM2_ALG,
    TPM2_RH,
    TPM2_ST,
    TPM2B_DATA,
    TPMT_RSA_DECRYPT,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
    TSS2_Exception,
)

from holdfast.keys.api import KeyRef
from holdfast.keys.hardware import HASHES, HardwareEcKey, HardwareRsaKey, check_raw, cut_digest
from holdfast.keys.tpm_faults import ObjectGone, from_tpm, is_code
from holdfast.keys.tpm_objects import Objects
from holdfast.keys.tpm_templates import PublicKey, can_decrypt, public_key
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import SigningKey

_ATTEMPTS: Final = 2
_RSA_FAULTS: Final = (0x84, 0x95, 0x101)  # VALUE, SIZE, FAILURE: how chips report bad padding
_TPM_HASH: Final = {
    "sha256": TPM2_ALG.SHA256,
    "sha384": TPM2_ALG.SHA384,
    "sha512": TPM2_ALG.SHA512,
}


@dataclass(frozen=True, slots=True)
class Place:
    """How to reach a key: ``locate`` gives its ESYS_TR, loading it if need be; ``forget`` when it is gone."""

    locate: Callable[[Any], Any]
    forget: Callable[[], None]


class TpmSigner:
    """EcSigner and RsaSigner over one TPM key. One TPM command an operation once the key is loaded."""

    def __init__(self, objects: Objects, place: Place, public: PublicKey, area: Any) -> None:
        self._objects = objects
        self._place = place
        self._public = public
        self._area = area

    def sign_digest(self, digest: bytes) -> bytes:
        """As EcSigner."""
        public = self._public
        assert isinstance(public, ec.EllipticCurvePublicKey)
        cut, algorithm = cut_digest(digest, public)

        def check(signature: bytes) -> None:
            public.verify(signature, cut, ec.ECDSA(utils.Prehashed(algorithm)))

        return self._checked(functools.partial(_sign, cut, TPM2_ALG.ECDSA, algorithm.name), check)

    def sign_pkcs1(self, algorithm: str, digest: bytes) -> bytes:
        public = self._rsa()

        def check(signature: bytes) -> None:
            public.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(HASHES[algorithm]))

        return self._checked(functools.partial(_sign, digest, TPM2_ALG.RSASSA, algorithm), check)

    def rsa_raw(self, block: bytes) -> bytes:
        if not can_decrypt(self._area):
            raise KeyStoreError(
                "key.no-raw-rsa",
                "this RSA key signs with PKCS#1 v1.5 only; TLS 1.3 and PSS need one that may also decrypt",
            )
        scheme = TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)
        check = functools.partial(check_raw, self._rsa(), block)
        return self._checked(functools.partial(_rsa_operation, block, scheme, len(block)), check)

    def rsa_decrypt(self, ciphertext: bytes, oaep: str | None) -> bytes:
        """As RsaSigner. Raises KeyStoreError(``key.decrypt-failed``), which does not tell why."""
        if not can_decrypt(self._area):
            raise KeyStoreError("key.cannot-decrypt", "this key does not decrypt")
        scheme = TPMT_RSA_DECRYPT(scheme=TPM2_ALG.RSAES if oaep is None else TPM2_ALG.OAEP)
        if oaep is not None:
            if oaep not in _TPM_HASH:
                raise KeyStoreError("key.unsupported", f"OAEP with {oaep}")
            scheme.details.oaep.hashAlg = _TPM_HASH[oaep]
        return self._repeated(functools.partial(_decrypt, ciphertext, scheme))

    def _rsa(self) -> rsa.RSAPublicKey:
        assert isinstance(self._public, rsa.RSAPublicKey)
        return self._public

    def _checked(self, operation: Callable[[Any, Any], bytes], check: Callable[[bytes], None]) -> bytes:
        for _ in range(_ATTEMPTS):
            signature = self._repeated(operation)
            try:
                check(signature)
            except InvalidSignature:
                self._place.forget()
            else:
                return signature
        raise KeyStoreError(
            "key.bad-signature", "the TPM's signature does not verify with the key's public half"
        )

    def _repeated(self, operation: Callable[[Any, Any], bytes]) -> bytes:
        """Run *operation*, once more if the key had left the TPM."""

        def whole(esapi: Any) -> bytes:
            return operation(esapi, self._place.locate(esapi))

        try:
            return self._objects.run("use a key", whole)
        except ObjectGone:
            self._place.forget()
            return self._objects.run("use a key", whole)


def _sign(digest: bytes, scheme: int, algorithm: str, esapi: Any, key: Any) -> bytes:
    asked = TPMT_SIG_SCHEME(scheme=scheme)
    asked.details.any.hashAlg = _TPM_HASH[algorithm]
    ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    return bytes(esapi.sign(key, digest, asked, ticket))


def _rsa_operation(data: bytes, scheme: Any, size: int, esapi: Any, key: Any) -> bytes:
    return bytes(esapi.rsa_decrypt(key, data, scheme, TPM2B_DATA())).rjust(size, b"\0")


def _decrypt(ciphertext: bytes, scheme: Any, esapi: Any, key: Any) -> bytes:
    try:
        return _rsa_operation(ciphertext, scheme, 0, esapi, key)
    except TSS2_Exception as error:
        if from_tpm(error.rc) and any(is_code(error.rc, c) for c in _RSA_FAULTS):
            raise KeyStoreError("key.decrypt-failed", "the ciphertext is not for this key") from None
        raise


class TpmKey:
    """A :class:`~holdfast.keys.api.Key` in a TPM."""

    def __init__(
        self, ref: KeyRef, objects: Objects, place: Place, area: Any, pem: bytes | None = None
    ) -> None:
        self.ref = ref
        self.locate = place.locate
        self._pem = pem
        public = public_key(area)
        signer = TpmSigner(objects, place, public, area)
        self._signer: SigningKey = (
            HardwareEcKey(signer, public)
            if isinstance(public, ec.EllipticCurvePublicKey)
            else HardwareRsaKey(signer, public)
        )

    def signer(self) -> SigningKey:
        return self._signer

    def reference_pem(self) -> bytes | None:
        """The TSS2 PEM of a wrapped key; None for a persistent one, which has no such form."""
        return self._pem
