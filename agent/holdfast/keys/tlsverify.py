"""Our own decision about the peer's certificates, taken inside the handshake.

OpenSSL's path validation knows the system clock and host names; ours knows how far the clock can be
believed and what a BRSKI phase allows. The check runs before our own certificate is sent. The context
stays CERT_REQUIRED, so a context without a check refuses every peer.
"""

from __future__ import annotations

import ctypes as c
import itertools
import ssl
import weakref
from collections.abc import Callable
from typing import Final

from holdfast.keys import openssl, tlsfault
from holdfast.wire.errors import TrustError

PeerCheck = Callable[[tuple[bytes, ...]], None]

MAX_CERTIFICATES: Final = 16

_P = c.c_void_p
_checks: dict[int, PeerCheck] = {}  # by token, while the context that uses it lives
_tokens = itertools.count(1)


def on_peer_chain(context: ssl.SSLContext, check: PeerCheck) -> None:
    """During each handshake of *context*, give *check* the peer's chain: DER, leaf first, as it was sent.

    If *check* raises, the handshake ends with a bad_certificate alert and ``tlsfault.surfacing`` raises that
    exception again. It replaces OpenSSL's whole validation, names included, so *context* must be
    CERT_REQUIRED with ``check_hostname`` off: ValueError otherwise. *check* must not hold *context*, or
    neither is ever freed.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED or context.check_hostname:
        raise ValueError("the context must be CERT_REQUIRED and leave host names to the check")
    pointer = openssl.context_pointer(context)
    token = next(_tokens)
    _checks[token] = check
    weakref.finalize(context, _checks.pop, token, None).atexit = False
    openssl.call("SSL_CTX_set_cert_verify_callback", pointer, c.cast(_VERIFY, _P), token)


def _verify(store_context: int, token: int) -> int:
    try:
        _checks[token](_sent_chain(store_context))
    except BaseException as error:  # noqa: BLE001 - nothing may unwind through C; surfacing() raises it again
        tlsfault.keep(error)
        openssl.call("X509_STORE_CTX_set_error", store_context, openssl.X509_V_ERR_CERT_REJECTED)
        return 0
    openssl.call("X509_STORE_CTX_set_error", store_context, openssl.X509_V_OK)
    return 1


_VERIFY: Final = c.CFUNCTYPE(c.c_int, _P, _P)(_verify)


def _sent_chain(store_context: int) -> tuple[bytes, ...]:
    leaf = openssl.call("X509_STORE_CTX_get0_cert", store_context)
    if not leaf:
        raise TrustError("tls.no-certificate", "the peer sent no certificate")
    sent = openssl.call("X509_STORE_CTX_get0_untrusted", store_context)
    count = openssl.call("OPENSSL_sk_num", sent) if sent else 0
    if count > MAX_CERTIFICATES:
        raise TrustError(
            "tls.chain-too-long", f"the peer sent {count} certificates, {MAX_CERTIFICATES} are read"
        )
    chain = [openssl.certificate_der(openssl.call("OPENSSL_sk_value", sent, i)) for i in range(count)]
    first = openssl.certificate_der(leaf)
    return tuple(chain) if chain[:1] == [first] else (first, *chain)
