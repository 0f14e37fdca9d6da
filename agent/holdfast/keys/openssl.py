"""The libssl and libcrypto that Python's own ``ssl`` module runs on, through ctypes.

``dlsym`` on the handle of the ``_ssl`` extension walks its dependencies, so each function found here
belongs to exactly the library that ``_ssl`` uses. Two assumptions are checked before anything is touched:
``_ssl`` is linked dynamically with OpenSSL 3 or later, and a ``SSLContext`` object keeps its ``SSL_CTX*``
right behind the object header. Where they fail, every entry point raises
``KeyStoreError('tls.unsupported-python')``: no handshake is better than a wrong pointer.
"""

from __future__ import annotations

import ctypes as c
import functools
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final

from holdfast.wire.errors import KeyStoreError

Pointer = int  # an address owned by OpenSSL; 0 never leaves this module

EVP_PKEY_RSA: Final = 6
EVP_PKEY_EC: Final = 408
X509_V_OK: Final = 0
X509_V_ERR_CERT_REJECTED: Final = 28

_P = c.c_void_p
_CTRL_GET_MIN_PROTO_VERSION: Final = 130

_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "ERR_get_error": (c.c_ulong, ()),
    "ERR_clear_error": (None, ()),
    "ERR_error_string_n": (None, (c.c_ulong, c.c_char_p, c.c_size_t)),
    "SSL_CTX_get_options": (c.c_uint64, (_P,)),
    "SSL_CTX_get_verify_mode": (c.c_int, (_P,)),
    "SSL_CTX_ctrl": (c.c_long, (_P, c.c_int, c.c_long, _P)),
    "SSL_CTX_use_cert_and_key": (c.c_int, (_P, _P, _P, _P, c.c_int)),
    "SSL_CTX_set_cert_verify_callback": (None, (_P, _P, _P)),
    "X509_STORE_CTX_get0_cert": (_P, (_P,)),
    "X509_STORE_CTX_get0_untrusted": (_P, (_P,)),
    "X509_STORE_CTX_set_error": (None, (_P, c.c_int)),
    "OPENSSL_sk_new_null": (_P, ()),
    "OPENSSL_sk_push": (c.c_int, (_P, _P)),
    "OPENSSL_sk_num": (c.c_int, (_P,)),
    "OPENSSL_sk_value": (_P, (_P, c.c_int)),
    "OPENSSL_sk_free": (None, (_P,)),
    "d2i_X509": (_P, (_P, c.POINTER(c.c_char_p), c.c_long)),
    "i2d_X509": (c.c_int, (_P, _P)),
    "X509_free": (None, (_P,)),
    "d2i_PUBKEY": (_P, (_P, c.POINTER(c.c_char_p), c.c_long)),
    "d2i_AutoPrivateKey": (_P, (_P, c.POINTER(c.c_char_p), c.c_long)),
    "EVP_PKEY_new": (_P, ()),
    "EVP_PKEY_free": (None, (_P,)),
    "EVP_PKEY_get_size": (c.c_int, (_P,)),
    "EVP_PKEY_assign": (c.c_int, (_P, c.c_int, _P)),
    "EVP_PKEY_get1_EC_KEY": (_P, (_P,)),
    "EVP_PKEY_get1_RSA": (_P, (_P,)),
    "EC_KEY_free": (None, (_P,)),
    "RSA_free": (None, (_P,)),
    "EC_KEY_OpenSSL": (_P, ()),
    "EC_KEY_METHOD_new": (_P, (_P,)),
    "EC_KEY_METHOD_set_sign": (None, (_P, _P, _P, _P)),
    "EC_KEY_set_method": (c.c_int, (_P, _P)),
    "RSA_PKCS1_OpenSSL": (_P, ()),
    "RSA_meth_dup": (_P, (_P,)),
    "RSA_meth_set_sign": (c.c_int, (_P, _P)),
    "RSA_meth_set_priv_enc": (c.c_int, (_P, _P)),
    "RSA_meth_set_flags": (c.c_int, (_P, c.c_int)),
    "RSA_set_method": (c.c_int, (_P, _P)),
}


def _unsupported(why: str) -> KeyStoreError:
    return KeyStoreError(
        "tls.unsupported-python",
        f"TLS with a hardware key needs CPython whose ssl module is dynamically linked with OpenSSL 3: {why}",
    )


@functools.cache
def library() -> dict[str, Callable[..., Any]]:
    """Every function of ``_SIGNATURES`` by name, bound once a process. Raises ``tls.unsupported-python``."""
    if sys.implementation.name != "cpython":
        raise _unsupported(f"this is {sys.implementation.name}")
    if not ssl.OPENSSL_VERSION.startswith("OpenSSL ") or ssl.OPENSSL_VERSION_INFO < (3, 0):
        raise _unsupported(f"this ssl module uses {ssl.OPENSSL_VERSION}")
    extension = getattr(sys.modules["_ssl"], "__file__", None)
    if extension is None:
        raise _unsupported("it is built into the interpreter")
    try:
        dll = c.CDLL(extension)
        bound: dict[str, Callable[..., Any]] = {}
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(dll, name)
            function.restype, function.argtypes = result, arguments
            bound[name] = function
    except (OSError, AttributeError) as error:
        raise _unsupported(f"{error}") from error
    return bound


def call(name: str, *arguments: object) -> Any:
    """Call the OpenSSL function *name*."""
    return library()[name](*arguments)


def drain_errors() -> str:
    """The reasons in this thread's OpenSSL error queue, oldest first; the queue is empty afterwards."""
    reasons = []
    while code := call("ERR_get_error"):
        text = c.create_string_buffer(256)
        call("ERR_error_string_n", code, text, len(text))
        reasons.append(text.value.decode("ascii", "replace"))
    return "; ".join(reasons) or "no reason given"


def decode(function: str, der: bytes) -> Pointer:
    """A new object from *der* by a ``d2i_`` function. Raises KeyStoreError(``tls.der``)."""
    place = c.c_char_p(der)
    pointer: Pointer | None = call(function, None, c.byref(place), len(der))
    if not pointer:
        raise KeyStoreError("tls.der", f"{function}: {drain_errors()}")
    return pointer


def certificate_der(x509: Pointer) -> bytes:
    """The DER of an ``X509*`` exactly as it was received. Raises KeyStoreError(``tls.der``)."""
    size: int = call("i2d_X509", x509, None)
    if size <= 0:
        raise KeyStoreError("tls.der", f"i2d_X509: {drain_errors()}")
    buffer = c.create_string_buffer(size)
    place = c.c_void_p(c.addressof(buffer))
    call("i2d_X509", x509, c.byref(place))
    return buffer.raw


def context_pointer(context: ssl.SSLContext) -> Pointer:
    """The ``SSL_CTX*`` inside *context*. Raises ``tls.unsupported-python`` if it is not where expected."""
    library()
    _layout_holds()
    return _checked_pointer(context)


def _read_pointer(context: ssl.SSLContext) -> Pointer:
    offset = object.__basicsize__
    if type(context).__basicsize__ < offset + c.sizeof(_P):
        raise _unsupported("a SSLContext object has no room for its SSL_CTX")
    pointer = _P.from_address(id(context) + offset).value
    if not pointer or pointer % c.sizeof(_P):
        raise _unsupported("a SSLContext object does not start with its SSL_CTX")
    return pointer


def _checked_pointer(context: ssl.SSLContext) -> Pointer:
    if not isinstance(context, ssl.SSLContext):
        raise TypeError("context must be an ssl.SSLContext")
    pointer = _read_pointer(context)
    told = (int(context.options) & 0xFFFFFFFFFFFFFFFF, int(context.verify_mode))
    modes = {0: ssl.CERT_NONE, 1: ssl.CERT_OPTIONAL, 3: ssl.CERT_REQUIRED}
    found = (
        call("SSL_CTX_get_options", pointer),
        int(modes.get(call("SSL_CTX_get_verify_mode", pointer) & 3, -1)),
    )
    if told != found:
        raise _unsupported(f"a SSLContext says options and verify mode {told}, its SSL_CTX {found}")
    return pointer


@functools.cache
def _layout_holds() -> None:
    """Change a context of our own through Python and see each change through OpenSSL.

    Equal values could be a coincidence once; values that follow a change are not.
    """
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    probe.check_hostname = False
    for mode in (ssl.CERT_NONE, ssl.CERT_REQUIRED):
        probe.verify_mode = mode
        probe.options ^= ssl.OP_NO_TICKET
        _checked_pointer(probe)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        probe.minimum_version = version
        found = call("SSL_CTX_ctrl", _read_pointer(probe), _CTRL_GET_MIN_PROTO_VERSION, 0, None)
        if found != int(version):
            raise _unsupported("the minimum TLS version is not where Python put it")
