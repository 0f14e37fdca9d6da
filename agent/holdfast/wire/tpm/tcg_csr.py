"""TCG-CSR-IDEVID: what a device shows a CA to get its IDevID and IAK certificates.

"TPM 2.0 Keys for Device Identity and Attestation" v1.0 r12 §13: big-endian 32-bit sizes, then what they
measure. The contents carry a hash of all that follows in them, and are signed by the IDevID key.

Written as devices in the field write it (openconfig's attestz reads it so): the hash stands right behind its
size, public areas are TPMT_PUBLIC, statements TPMS_ATTEST, signatures TPMT_SIGNATURE. Read as well: TPM2B
around areas and statements, and an outer signature in DER, for which the text of §13 can be taken.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from holdfast.wire.algorithms import DIGESTS, verify
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.tpm.attested import verify_statement
from holdfast.wire.tpm.octets import Octets
from holdfast.wire.tpm.public import HASHES, TpmPublic

VERSION: Final = 0x01000100
CONTENT_VERSION: Final = 0x00000100
LIMIT: Final = 64 * 1024
_ALIGNMENT: Final = 16
_CLAUSE: Final = "TCG DevID §13.1"
_FIELDS: Final = (
    "model",
    "serial",
    "ca_data",
    "boot_log",
    "ek_certificate",
    "iak",
    "iak_creation_ticket",
    "iak_statement",
    "iak_statement_signature",
    "idevid",
    "idevid_statement",
    "idevid_statement_signature",
)
"""In the order of the structure; the padding follows them."""


@dataclass(frozen=True, slots=True)
class IdevidContents:
    """TCG_CSR_IDEVID_CONTENT. ``ek_certificate`` is DER, ``idevid_statement`` what the IAK says of the IDevID
    (TPM2_Certify). What a device leaves out is empty. ``ca_data`` is whatever a CA wants besides."""

    model: bytes
    serial: bytes
    ek_certificate: bytes = field(repr=False)
    iak: bytes = field(repr=False)
    idevid: bytes = field(repr=False)
    idevid_statement: bytes = field(repr=False)
    idevid_statement_signature: bytes = field(repr=False)
    ca_data: bytes = field(default=b"", repr=False)
    boot_log: bytes = field(default=b"", repr=False)
    iak_creation_ticket: bytes = field(default=b"", repr=False)
    iak_statement: bytes = field(default=b"", repr=False)
    iak_statement_signature: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class IdevidRequest:
    """TCG_CSR_IDEVID: ``signed`` are the contents as octets, ``signature`` the IDevID key's over them."""

    contents: IdevidContents
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def build_contents(contents: IdevidContents, digest: str = "sha256") -> bytes:
    """The octets to be signed. *digest* is a hashlib name of SHA-2."""
    values = [getattr(contents, name) for name in _FIELDS]
    size = hashlib.new(digest).digest_size
    head = 12 + size + 4 * (len(values) + 1)
    padding = bytes(-(head + sum(map(len, values))) % _ALIGNMENT)
    hashed = b"".join(_number(len(value)) for value in (*values, padding)) + b"".join((*values, padding))
    algorithm = next(code for code, name in HASHES.items() if name == digest)
    start = _number(CONTENT_VERSION) + _number(algorithm) + _number(size)
    return start + hashlib.new(digest, hashed).digest() + hashed


def build_request(signed: bytes, signature: bytes) -> bytes:
    """The whole structure. *signature* is a TPMT_SIGNATURE over *signed*."""
    return _number(VERSION) + _number(len(signed)) + _number(len(signature)) + signed + signature


def parse_contents(data: bytes) -> IdevidContents:
    """Read the contents and check their hash.

    Raises RemoteProtocolError ``tcgcsr.syntax``, ``tcgcsr.version``, ``tcgcsr.digest``, ``tcgcsr.hash``.
    """
    cursor = _Cursor(data)
    if (version := cursor.number()) != CONTENT_VERSION:
        raise _fault("version", f"the contents have version {version:#010x}")
    name = HASHES.get(cursor.number())
    if name is None:
        raise _fault("digest", "hashed by an unknown or weak digest")
    stated = cursor.take(cursor.number())
    if not hmac.compare_digest(stated, hashlib.new(name, cursor.rest).digest()):
        raise _fault("hash", "the hash is not that of what follows it")
    sizes = [cursor.number() for _ in range(len(_FIELDS) + 1)]
    found = dict(zip(_FIELDS, map(cursor.take, sizes[:-1]), strict=True))
    cursor.take(sizes[-1])
    cursor.end()
    for sized in ("iak", "idevid", "idevid_statement"):
        found[sized] = _unsized(found[sized])
    return IdevidContents(**found)


def parse_request(data: bytes) -> IdevidRequest:
    """Read the whole structure. Raises as :func:`parse_contents` does; the signature is not checked here."""
    cursor = _Cursor(data)
    if (version := cursor.number()) != VERSION:
        raise _fault("version", f"the request has version {version:#010x}")
    contents, signature = cursor.number(), cursor.number()
    signed, value = cursor.take(contents), cursor.take(signature)
    cursor.end()
    return IdevidRequest(parse_contents(signed), signed, value)


def verify_request(request: IdevidRequest, key: TpmPublic) -> None:
    """The IDevID key *key* signed the contents: it is there, and whoever asks can use it.

    Raises TrustError ``attest.signature``, ``attest.algorithm``, ``signature.invalid``; RemoteProtocolError
    ``tpm.syntax``.
    """
    if not request.signature:
        raise TrustError("attest.signature", "the request is not signed", clause=_CLAUSE)
    if request.signature[:1] == b"\x30":
        verify(key.key, request.signature, request.signed, DIGESTS[key.name_hash]())
    else:
        verify_statement(request.signed, request.signature, key.key)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _unsized(data: bytes) -> bytes:
    """What is inside a TPM2B, or *data* itself."""
    return data[2:] if len(data) > 2 and int.from_bytes(data[:2], "big") == len(data) - 2 else data


def _fault(code: str, detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"tcgcsr.{code}", detail, clause=_CLAUSE)


class _Cursor(Octets):
    """As for a TPM's structures, with wider numbers and errors of our own."""

    def __init__(self, data: bytes) -> None:
        if len(data) > LIMIT:
            raise _fault("syntax", f"{len(data)} octets, limit {LIMIT}")
        super().__init__(data, "the request", limit=LIMIT)

    def number(self, width: int = 4) -> int:
        return super().number(width)

    def take(self, length: int) -> bytes:
        try:
            return super().take(length)
        except RemoteProtocolError as error:
            raise _fault("syntax", error.detail) from error

    def end(self) -> None:
        try:
            super().end()
        except RemoteProtocolError as error:
            raise _fault("syntax", error.detail) from error
