"""The factory's ledger: one JSON line for each IDevID certificate that was ever issued.

A line is durable before its certificate leaves the factory, so no certificate exists that it misses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import csr
from holdfast.wire.errors import StateCorrupt, StateError
from holdfast_factory.files import append_line

LEDGER: Final = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One issued IDevID. Hashes are SHA-256 in hexadecimal: of the certificate's DER, of the key's
    SubjectPublicKeyInfo, and of the EK certificate (empty if the TPM has none)."""

    at: datetime
    serial: str
    certificate_serial: str
    certificate: str
    key: str
    ek_certificate: str


def entries(directory: Path) -> tuple[Entry, ...]:
    """Every entry, oldest first. Raises StateCorrupt naming the line."""
    path = directory / LEDGER
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise StateError("factory.ledger", f"{path}: {error.strerror}") from error
    found: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError as error:
            raise StateCorrupt("factory.ledger", f"{path} line {number}: {error}") from error
    return tuple(found)


def append(
    directory: Path, certificate: x509.Certificate, serial: str, now: datetime, *, ek_certificate: bytes = b""
) -> None:
    """Write down durably that *serial* got *certificate*; *ek_certificate* is DER, empty if there is none."""
    entry = Entry(
        at=now,
        serial=serial,
        certificate_serial=f"{certificate.serial_number:x}",
        certificate=fingerprint(certificate.public_bytes(Encoding.DER)),
        key=fingerprint(csr.public_bytes(certificate)),
        ek_certificate=fingerprint(ek_certificate) if ek_certificate else "",
    )
    append_line(directory / LEDGER, msgspec.json.encode(entry))


def fingerprint(der: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def knows_key(directory: Path, key: str) -> bool:
    """Whether a certificate was ever issued for *key*."""
    return any(e.key == key for e in entries(directory))


def other_owner(directory: Path, serial: str, key: str) -> Entry | None:
    """The entry that gave *serial* to a key other than *key*, if there is one."""
    return next((e for e in entries(directory) if e.serial == serial and e.key != key), None)
