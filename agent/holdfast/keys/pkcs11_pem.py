"""A PKCS#11 URI in the clothes of a key file, for programs that can only name one.

OpenSSL's pkcs11 provider reads it (its ``PKCS#11 PROVIDER URI`` PEM, format version 1.0): an ASN.1 SEQUENCE
of the format's name and the URI. It holds no secret.
"""

from __future__ import annotations

import base64
import textwrap
from typing import Final

from asn1crypto import core

_LABEL: Final = "PKCS#11 PROVIDER URI"
_FORMAT: Final = "PKCS#11 Provider URI v1.0"


class _ProviderUri(core.Sequence):  # type: ignore[misc]
    _fields = [("format", core.VisibleString), ("uri", core.UTF8String)]  # noqa: RUF012


def uri_pem(uri: str) -> bytes:
    """PEM text that leads the provider to *uri*."""
    der = _ProviderUri({"format": _FORMAT, "uri": uri}).dump()
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""]).encode("ascii")
