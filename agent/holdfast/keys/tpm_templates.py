"""Public areas of the keys that we make, and what a public area says about a key."""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tpm2_pytss import (
    TPM2_ALG,
    TPM2_ECC,
    TPMA_OBJECT,
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
    TSS2_Exception,
)

from holdfast.keys.api import KeySpec
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import KeyAlgorithm

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

# noDA: a wrong authorisation value, or a power cut, does not count towards the TPM's lockout.
_OURS: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
)
_CURVES: Final = {KeyAlgorithm.P256: TPM2_ECC.NIST_P256, KeyAlgorithm.P384: TPM2_ECC.NIST_P384}
_RSA_BITS: Final = {KeyAlgorithm.RSA2048: 2048, KeyAlgorithm.RSA3072: 3072}


def _template(kind: int, attributes: int, parameters: Any) -> Any:
    return TPMT_PUBLIC(
        type=kind,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=attributes,
        authPolicy=b"",
        parameters=parameters,
    )


def _ecc(attributes: int, symmetric: Any, curve: int) -> Any:
    detail = TPMS_ECC_PARMS(
        symmetric=symmetric,
        scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
        curveID=curve,
        kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
    )
    return _template(TPM2_ALG.ECC, attributes, TPMU_PUBLIC_PARMS(eccDetail=detail))


def storage_root() -> Any:
    """The ECC P-256 storage root key that tpm2-tools and users of TSS2 PEM files derive too."""
    symmetric = TPMT_SYM_DEF_OBJECT(
        algorithm=TPM2_ALG.AES,
        keyBits=TPMU_SYM_KEY_BITS(aes=128),
        mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB),
    )
    return _ecc(_OURS | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT, symmetric, TPM2_ECC.NIST_P256)


def signing_key(spec: KeySpec) -> Any:
    """The template for *spec*. Raises KeyStoreError(``key.cannot-decrypt``) for an EC key that shall decrypt.

    RSA keys always sign and decrypt with a free scheme: TLS 1.3 wants PSS with a salt of digest length,
    which only the raw operation gives on every chip.
    """
    none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    if spec.algorithm in _CURVES:
        if spec.decrypt:
            raise KeyStoreError(
                "key.cannot-decrypt", f"a {spec.algorithm.value} key only signs; decryption needs an RSA key"
            )
        return _ecc(_OURS | TPMA_OBJECT.SIGN_ENCRYPT, none, _CURVES[spec.algorithm])
    detail = TPMS_RSA_PARMS(
        symmetric=none,
        scheme=TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL),
        keyBits=_RSA_BITS[spec.algorithm],
        exponent=0,
    )
    attributes = _OURS | TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.DECRYPT
    return _template(TPM2_ALG.RSA, attributes, TPMU_PUBLIC_PARMS(rsaDetail=detail))


def attestation_key(algorithm: KeyAlgorithm) -> Any:
    """The template of an attestation key: P-256 or RSA-2048, signs only what its TPM made (restricted).

    ``unique`` sets it apart from other primary keys of the endorsement hierarchy. Raises
    KeyStoreError(``key.unsupported``).
    """
    none = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    attributes = _OURS | TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.RESTRICTED
    if algorithm is KeyAlgorithm.RSA2048:
        rsassa = TPMT_RSA_SCHEME(scheme=TPM2_ALG.RSASSA)
        rsassa.details.rsassa.hashAlg = TPM2_ALG.SHA256
        detail = TPMS_RSA_PARMS(symmetric=none, scheme=rsassa, keyBits=2048, exponent=0)
        area = _template(TPM2_ALG.RSA, attributes, TPMU_PUBLIC_PARMS(rsaDetail=detail))
        area.unique.rsa = b"HOLDFAST-AK".ljust(256, b"\0")
        return area
    if algorithm is not KeyAlgorithm.P256:
        raise KeyStoreError("key.unsupported", f"no attestation key of kind {algorithm.value}")
    area = _ecc(attributes, none, TPM2_ECC.NIST_P256)
    scheme = TPMT_ECC_SCHEME(scheme=TPM2_ALG.ECDSA)
    scheme.details.ecdsa.hashAlg = TPM2_ALG.SHA256
    area.parameters.eccDetail.scheme = scheme
    area.unique.ecc.x = b"HOLDFAST-AK".ljust(32, b"\0")
    return area


def is_storage_parent(public: Any) -> bool:
    """True if keys can be made under the object with this public area."""
    wanted = TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
    return bool(
        public.objectAttributes & wanted == wanted and not public.objectAttributes & TPMA_OBJECT.SIGN_ENCRYPT
    )


def can_decrypt(public: Any) -> bool:
    """True if an RSA key gives the raw private operation: it decrypts, and with a free scheme."""
    free = int(public.parameters.rsaDetail.scheme.scheme) == int(TPM2_ALG.NULL)
    return bool(public.objectAttributes & TPMA_OBJECT.DECRYPT) and free


def public_key(public: Any) -> PublicKey:
    """The public key in *public*. KeyStoreError: ``key.restricted``, ``key.no-signing``, ``key.kind``."""
    attributes = public.objectAttributes
    if attributes & TPMA_OBJECT.RESTRICTED:
        raise KeyStoreError("key.restricted", "a restricted key signs only what its TPM made")
    if not attributes & TPMA_OBJECT.SIGN_ENCRYPT:
        raise KeyStoreError("key.no-signing", "this key is not a signing key")
    try:
        key = load_der_public_key(public.to_der())
    except (ValueError, TypeError, UnsupportedAlgorithm, TSS2_Exception) as error:
        raise KeyStoreError("key.kind", f"the public area holds no usable key: {error}") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    raise KeyStoreError("key.kind", "only P-256, P-384 and RSA of at least 2048 bits are used")
