"""TLS authentication with a key that cannot be exported.

OpenSSL is given a key that has a public half only, and whose signing methods call back into the hardware:
one private operation a handshake, no provider, no engine, no temporary file. The callbacks run in the thread
that performs the handshake; wrap that in :func:`surfacing` to see what they raised.
"""

from __future__ import annotations

import ctypes as c
import functools
import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cryptography.hazmat.primitives import serialization

from holdfast.keys import openssl, tlsfault
from holdfast.keys.hardware import EcSigner, HardwareEcKey, HardwareRsaKey, RsaSigner
from holdfast.keys.tlsfault import last_error, surfacing
from holdfast.wire.errors import KeyStoreError
from holdfast.wire.model import Chain, SigningKey

__all__ = ["last_error", "surfacing", "use_key"]

_P = c.c_void_p
_LENGTH = c.POINTER(c.c_uint)
_RSA_NO_PADDING: Final = 3
_RSA_METHOD_FLAGS: Final = 0x0001 | 0x0020  # RSA_METHOD_FLAG_NO_CHECK | RSA_FLAG_EXT_PKEY: no primes here
_HASH_BY_NID: Final = {672: "sha256", 673: "sha384", 674: "sha512"}


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class _Held(Generic[S]):
    """A signer, and how many octets OpenSSL leaves for its signature."""

    signer: S
    limit: int


_ec_signers: dict[int, _Held[EcSigner]] = {}  # by EC_KEY*, while the context that uses it lives
_rsa_signers: dict[int, _Held[RsaSigner]] = {}  # by RSA*


def use_key(context: ssl.SSLContext, chain: Chain, key: SigningKey) -> None:
    """Let *context* authenticate itself by *chain* (leaf first) and *key*, hardware or software.

    The signer lives as long as the context. Raises KeyStoreError: ``tls.key-mismatch`` if the leaf is not
    for this key, ``tls.certificate`` if OpenSSL refuses the certificates, ``tls.key-unsupported``,
    ``tls.unsupported-python``.
    """
    if not chain:
        raise KeyStoreError("tls.certificate", "the certificate chain is empty")
    if _spki(chain[0].public_key()) != _spki(key.public_key()):
        raise KeyStoreError("tls.key-mismatch", "the leaf certificate is for another key")
    pointer = openssl.context_pointer(context)
    openssl.call("ERR_clear_error")
    pkey, forget = (
        _hardware_pkey(key) if isinstance(key, HardwareEcKey | HardwareRsaKey) else _software_pkey(key)
    )
    # Connections keep their context alive, so the address of the key stays ours until none is left.
    release = weakref.finalize(context, _release, pkey, forget)
    release.atexit = False
    try:
        _install(pointer, chain, pkey)
    except KeyStoreError:
        release()
        raise


def _spki(public: Any) -> bytes:
    der: bytes = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


def _release(pkey: openssl.Pointer, forget: Callable[[], object]) -> None:
    forget()
    openssl.call("EVP_PKEY_free", pkey)


def _install(context: openssl.Pointer, chain: Chain, pkey: openssl.Pointer) -> None:
    """Put leaf, key and the rest of the chain into the context; OpenSSL takes its own references."""
    stack = openssl.call("OPENSSL_sk_new_null")
    owned: list[openssl.Pointer] = []
    try:
        for certificate in chain:
            der = certificate.public_bytes(serialization.Encoding.DER)
            owned.append(openssl.decode("d2i_X509", der))
        for issuer in owned[1:]:
            openssl.call("OPENSSL_sk_push", stack, issuer)
        if openssl.call("SSL_CTX_use_cert_and_key", context, owned[0], pkey, stack, 1) != 1:
            raise KeyStoreError("tls.certificate", f"OpenSSL refuses it: {openssl.drain_errors()}")
    finally:
        for x509 in owned:
            openssl.call("X509_free", x509)
        openssl.call("OPENSSL_sk_free", stack)


def _software_pkey(key: SigningKey) -> tuple[openssl.Pointer, Callable[[], object]]:
    try:
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except NotImplementedError as error:
        raise KeyStoreError(
            "tls.key-unsupported", f"{type(key).__name__} can neither sign here nor be exported"
        ) from error
    return openssl.decode("d2i_AutoPrivateKey", der), lambda: None


def _hardware_pkey(key: HardwareEcKey | HardwareRsaKey) -> tuple[openssl.Pointer, Callable[[], object]]:
    """An ``EVP_PKEY*`` that signs through *key*, and what to call before it is freed."""
    public = openssl.decode("d2i_PUBKEY", _spki(key.public_key()))
    try:
        if isinstance(key, HardwareEcKey):
            inner = openssl.call("EVP_PKEY_get1_EC_KEY", public)
            done = inner and openssl.call("EC_KEY_set_method", inner, _ec_method())
            free, kind = "EC_KEY_free", openssl.EVP_PKEY_EC
        else:
            inner = openssl.call("EVP_PKEY_get1_RSA", public)
            done = inner and openssl.call("RSA_set_method", inner, _rsa_method())
            free, kind = "RSA_free", openssl.EVP_PKEY_RSA
        limit = openssl.call("EVP_PKEY_get_size", public)
        pkey = openssl.call("EVP_PKEY_new")
        if not done or openssl.call("EVP_PKEY_assign", pkey, kind, inner) != 1:
            openssl.call(free, inner)
            openssl.call("EVP_PKEY_free", pkey)
            raise KeyStoreError("tls.key-unsupported", openssl.drain_errors())
    finally:
        openssl.call("EVP_PKEY_free", public)
    if isinstance(key, HardwareEcKey):
        _ec_signers[inner] = _Held(key.signer, limit)
        return pkey, functools.partial(_ec_signers.pop, inner, None)
    _rsa_signers[inner] = _Held(key.signer, limit)
    return pkey, functools.partial(_rsa_signers.pop, inner, None)


def _place(signature: bytes, out: int, limit: int) -> int:
    """Copy *signature* to the buffer that OpenSSL sized for *limit* octets; returns its length."""
    if not 0 < len(signature) <= limit:
        raise KeyStoreError("key.bad-signature", f"{len(signature)} octets where at most {limit} fit")
    c.memmove(out, signature, len(signature))
    return len(signature)


def _ec_sign(_type: int, digest: int, size: int, out: int, out_size: Any, *rest: int) -> int:
    try:
        held = _ec_signers[rest[2]]
        out_size[0] = _place(held.signer.sign_digest(c.string_at(digest, size)), out, held.limit)
    except BaseException as error:  # noqa: BLE001 - nothing may unwind through C; surfacing() raises it again
        tlsfault.keep(error)
        return 0
    return 1


def _rsa_sign(nid: int, digest: int, size: int, out: int, *rest: Any) -> int:
    out_size, rsa = rest
    try:
        if nid not in _HASH_BY_NID:
            raise KeyStoreError("key.unsupported", f"a TLS signature with the digest of OpenSSL nid {nid}")
        held = _rsa_signers[rsa]
        signature = held.signer.sign_pkcs1(_HASH_BY_NID[nid], c.string_at(digest, size))
        out_size[0] = _place(signature, out, held.limit)
    except BaseException as error:  # noqa: BLE001 - as above
        tlsfault.keep(error)
        return 0
    return 1


def _rsa_private(size: int, block: int, out: int, rsa: int, padding: int) -> int:
    """Returns -1 on error: 0 would be taken for an empty signature, and sent."""
    try:
        if padding != _RSA_NO_PADDING:
            raise KeyStoreError("key.unsupported", f"a TLS signature with OpenSSL padding mode {padding}")
        held = _rsa_signers[rsa]
        return _place(held.signer.rsa_raw(c.string_at(block, size)), out, held.limit)
    except BaseException as error:  # noqa: BLE001 - as above
        tlsfault.keep(error)
        return -1


# OpenSSL keeps these addresses for the life of the process, so the objects are never dropped.
_EC_SIGN: Final = c.CFUNCTYPE(c.c_int, c.c_int, _P, c.c_int, _P, _LENGTH, _P, _P, _P)(_ec_sign)
_RSA_SIGN: Final = c.CFUNCTYPE(c.c_int, c.c_int, _P, c.c_uint, _P, _LENGTH, _P)(_rsa_sign)
_RSA_PRIVATE: Final = c.CFUNCTYPE(c.c_int, c.c_int, _P, _P, _P, c.c_int)(_rsa_private)


@functools.cache
def _ec_method() -> openssl.Pointer:
    method: openssl.Pointer = openssl.call("EC_KEY_METHOD_new", openssl.call("EC_KEY_OpenSSL"))
    openssl.call("EC_KEY_METHOD_set_sign", method, c.cast(_EC_SIGN, _P), None, None)
    return method


@functools.cache
def _rsa_method() -> openssl.Pointer:
    method: openssl.Pointer = openssl.call("RSA_meth_dup", openssl.call("RSA_PKCS1_OpenSSL"))
    openssl.call("RSA_meth_set_sign", method, c.cast(_RSA_SIGN, _P))
    openssl.call("RSA_meth_set_priv_enc", method, c.cast(_RSA_PRIVATE, _P))
    openssl.call("RSA_meth_set_flags", method, _RSA_METHOD_FLAGS)
    return method
