"""Hardware keys as ``cryptography`` private keys, over a small signer that a key store supplies.

CSR and certificate builders, PKCS#7 and our CMS take these like any software key. What would show the
private half, and what the hardware cannot do, raises :class:`~holdfast.wire.errors.KeyStoreError`.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, NoReturn, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from holdfast.keys.rsapss import encode_pss
from holdfast.wire.errors import KeyStoreError

_BY_SIZE: Final[dict[int, hashes.HashAlgorithm]] = {
    32: hashes.SHA256(),
    48: hashes.SHA384(),
    64: hashes.SHA512(),
}
HASHES: Final = {a.name: a for a in _BY_SIZE.values()}
"""What hardware keys sign over, by the names that RsaSigner uses."""


class EcSigner(Protocol):
    """What a store supplies for an EC key. Raises only KeyStoreError and its kinds."""

    def sign_digest(self, digest: bytes) -> bytes:
        """DER ``ECDSA-Sig-Value`` over *digest* (20 to 64 octets), cut to the order's length by X9.62."""
        ...


class RsaSigner(Protocol):
    """What a store supplies for an RSA key. Raises only KeyStoreError and its kinds."""

    def sign_pkcs1(self, algorithm: str, digest: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over *digest* made with *algorithm* (``sha256``, ``sha384``, ``sha512``)."""
        ...

    def rsa_raw(self, block: bytes) -> bytes:
        """The private operation on a padded block of modulus length; the result has the same length."""
        ...

    def rsa_decrypt(self, ciphertext: bytes, oaep: str | None) -> bytes:
        """Decrypt: RSAES-PKCS1-v1_5 if *oaep* is None, else OAEP with that hash, MGF1 alike and no label."""
        ...


def cut_digest(digest: bytes, public: ec.EllipticCurvePublicKey) -> tuple[bytes, hashes.HashAlgorithm]:
    """*digest* cut to the order's length (X9.62), and a hash of what is left of it: not every chip or token
    cuts, nor has the longer hash. Raises KeyStoreError ``key.digest``."""
    cut = digest[: (public.key_size + 7) // 8]
    if len(cut) not in _BY_SIZE:
        raise KeyStoreError("key.digest", f"no digest has {len(digest)} octets")
    return cut, _BY_SIZE[len(cut)]


def check_raw(public: rsa.RSAPublicKey, block: bytes, result: bytes) -> None:
    """Raises InvalidSignature unless *result* is the private operation on *block*."""
    numbers = public.public_numbers()
    if pow(int.from_bytes(result, "big"), numbers.e, numbers.n) != int.from_bytes(block, "big"):
        raise InvalidSignature


def _refuse_export() -> NoReturn:
    raise KeyStoreError("key.not-exportable", "the private half of this key never leaves its hardware")


def _unsupported(what: str) -> KeyStoreError:
    return KeyStoreError("key.unsupported", f"a hardware key does not do {what}")


def _digest(data: bytes, algorithm: hashes.HashAlgorithm | utils.Prehashed) -> tuple[str, bytes]:
    """Name and value of the digest of *data*, or *data* itself if it is one already."""
    if isinstance(algorithm, utils.Prehashed):
        if len(data) != algorithm.digest_size:
            raise KeyStoreError(
                "key.digest", f"a digest of {algorithm.digest_size} octets was announced, {len(data)} came"
            )
        return _prehashed_name(algorithm), data
    if not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise _unsupported(f"signatures over {algorithm.name}")
    state = hashes.Hash(algorithm)
    state.update(data)
    return algorithm.name, state.finalize()


def _prehashed_name(algorithm: utils.Prehashed) -> str:
    names = {32: "sha256", 48: "sha384", 64: "sha512"}  # Prehashed keeps its hash private
    name = names.get(algorithm.digest_size)
    if name is None:
        raise _unsupported(f"signatures over a digest of {algorithm.digest_size} octets")
    return name


class HardwareEcKey(ec.EllipticCurvePrivateKey):
    """An EC private key whose signatures are made by *signer*."""

    def __init__(self, signer: EcSigner, public: ec.EllipticCurvePublicKey) -> None:
        self.signer = signer
        self._public = public

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # type: ignore[override]
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise _unsupported(type(signature_algorithm).__name__)
        if signature_algorithm.deterministic_signing:
            raise _unsupported("deterministic ECDSA")
        _, digest = _digest(bytes(data), signature_algorithm.algorithm)
        return self.signer.sign_digest(digest)

    def exchange(self, *_: Any, **__: Any) -> NoReturn:
        raise _unsupported("ECDH")

    def private_numbers(self) -> NoReturn:
        _refuse_export()

    def private_bytes(self, *_: Any, **__: Any) -> NoReturn:
        _refuse_export()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        return self


class HardwareRsaKey(rsa.RSAPrivateKey):
    """An RSA private key whose signatures and decryptions are made by *signer*."""

    def __init__(self, signer: RsaSigner, public: rsa.RSAPublicKey) -> None:
        self.signer = signer
        self._public = public

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def sign(  # type: ignore[override]
        self,
        data: bytes,
        padding: padding.AsymmetricPadding,
        algorithm: hashes.HashAlgorithm | utils.Prehashed,
    ) -> bytes:
        """Sign by PKCS#1 v1.5, or by PSS with MGF1 of the same hash and a salt as long as the digest."""
        name, digest = _digest(bytes(data), algorithm)
        if _is_pkcs1(padding):
            return self.signer.sign_pkcs1(name, digest)
        salt = secrets.token_bytes(_pss_salt_length(padding, name, len(digest)))
        return self.signer.rsa_raw(encode_pss(digest, name, salt, self.key_size))

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        if len(ciphertext) * 8 != (self.key_size + 7) // 8 * 8:
            raise KeyStoreError("key.decrypt-failed", "the ciphertext is not as long as the modulus")
        oaep = None if _is_pkcs1(padding) else _oaep_hash(padding)
        return self.signer.rsa_decrypt(bytes(ciphertext), oaep)

    def private_numbers(self) -> NoReturn:
        _refuse_export()

    def private_bytes(self, *_: Any, **__: Any) -> NoReturn:
        _refuse_export()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        return self


def _is_pkcs1(scheme: padding.AsymmetricPadding) -> bool:
    return isinstance(scheme, padding.PKCS1v15)


def _same_mgf(mgf: object, name: str) -> bool:
    algorithm = getattr(mgf, "_algorithm", None)  # MGF1 has no public accessor
    return isinstance(mgf, padding.MGF1) and getattr(algorithm, "name", None) == name


def _pss_salt_length(scheme: padding.AsymmetricPadding, name: str, digest_size: int) -> int:
    """The salt length of *scheme*. Only a salt as long as the digest is portable: TLS and CAs demand it."""
    if not isinstance(scheme, padding.PSS):
        raise _unsupported(f"the padding {scheme.name}")
    if not _same_mgf(scheme.mgf, name):
        raise _unsupported("PSS whose mask generation uses another hash than the signature")
    asked = scheme._salt_length  # PSS has no public accessor
    if asked is padding.PSS.DIGEST_LENGTH or asked == digest_size:
        return digest_size
    raise _unsupported("PSS with a salt that is not as long as the digest; ask for PSS.DIGEST_LENGTH")


def _oaep_hash(scheme: padding.AsymmetricPadding) -> str:
    if not isinstance(scheme, padding.OAEP):
        raise _unsupported(f"the padding {scheme.name}")
    name = str(scheme.algorithm.name)
    if not _same_mgf(scheme.mgf, name):
        raise _unsupported("OAEP whose mask generation uses another hash")
    if scheme._label:  # no public accessor
        raise _unsupported("OAEP with a label")
    return name
