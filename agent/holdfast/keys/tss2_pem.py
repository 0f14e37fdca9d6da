"""TSS2 PRIVATE KEY files: a key that only its TPM can open (draft-woodhouse-tpm-key, "loadable keys").

Other programs read them by tpm2-openssl or tpm2-tools. Behind the PEM stands one line with the Name of the
parent, which lets us tell a TPM that was cleared from a file that is damaged. Readers of PEM skip it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.tsskey import TSSPrivKey

from holdfast.wire.errors import KeyStoreError

MAX_PEM: Final = 16 * 1024
_PARENT_LINE: Final = re.compile(rb"^Parent-Name: ([0-9a-f]{8,136})$", re.MULTILINE)
_END: Final = b"-----END TSS2 PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """``private`` and ``public`` are TPM2B structures; ``parent_name`` is empty if the file does not tell."""

    private: Any = field(repr=False)
    public: Any
    empty_auth: bool
    parent: int
    parent_name: bytes = b""


def encode(key: WrappedKey) -> bytes:
    """PEM text of *key*, with the line for its parent if that is known."""
    pem: bytes = TSSPrivKey(key.private, key.public, key.empty_auth, key.parent).to_pem()
    return b"%sParent-Name: %s\n" % (pem, key.parent_name.hex().encode()) if key.parent_name else pem


def decode(text: bytes) -> WrappedKey:
    """The key in *text*. Raises KeyStoreError(``key.corrupt``)."""
    if len(text) > MAX_PEM:
        raise KeyStoreError("key.corrupt", f"a key file of more than {MAX_PEM} octets")
    line = _PARENT_LINE.search(text.partition(_END)[2])
    try:
        key = TSSPrivKey.from_pem(text)
        key.public.get_name()  # now, so that a damaged public area does not surprise a later reader
        name = bytes.fromhex(line[1].decode("ascii")) if line else b""
    except (ValueError, TypeError, TSS2_Exception) as error:
        raise KeyStoreError("key.corrupt", f"not a TSS2 private key: {error}") from error
    return WrappedKey(key.private, key.public, key.empty_auth, key.parent, name)
