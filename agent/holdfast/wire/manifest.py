"""A manifest: what a factory tells the MASA, and an owner, of the devices that it made.

CMS SignedData (RFC 5652) over JSON, so that ``openssl cms -verify`` and any JSON reader suffice. The signer
is pinned by whoever reads it: devices live under the same root, and they, too, can sign.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import msgspec
from cryptography import x509

from holdfast.wire import certificates, cms, oids
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, SigningKey

FORMAT: Final = "holdfast-manifest-1"
LIMIT: Final = 64 * 1024 * 1024
MOST_DEVICES: Final = 20_000


@dataclass(frozen=True, slots=True)
class ManifestDevice:
    """``idevid`` and ``iak`` are DER (base64 in JSON), the latter empty where there is none;
    ``endorsement`` is the SHA-256, in hex, of the endorsement key's SubjectPublicKeyInfo, empty for a
    token."""

    serial: str
    idevid: bytes = field(repr=False)
    iak: bytes = field(repr=False)
    endorsement: str
    sealed: datetime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An entry of the factory's ledger, by number and hash (SHA-256, hex): who holds the manifest can have
    the ledger held against it."""

    ledger: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """``audience``: for whom it was made."""

    format: str
    audience: Literal["masa", "owner"]
    organization: str
    model: str
    made: datetime
    checkpoint: Checkpoint
    devices: tuple[ManifestDevice, ...]


def encode(manifest: Manifest, key: SigningKey, signer: x509.Certificate, chain: Chain = ()) -> bytes:
    """Sign *manifest* (DER). Raises LocalProtocolError."""
    content = msgspec.json.encode(manifest)
    return cms.sign(content, oids.CT_DATA, key, signer, chain, signing_time=manifest.made)


def decode(der: bytes, signer: x509.Certificate) -> Manifest:
    """Read a manifest that *signer*, and nobody else, has signed.

    Raises RemoteProtocolError ``manifest.syntax``, ``manifest.duplicate`` and those of CMS; TrustError
    ``manifest.signer`` and those of CMS.
    """
    signed = cms.open_signed(der, limit=LIMIT)
    if signed.signer != signer:
        raise TrustError("manifest.signer", "it is signed by somebody else than the pinned signer")
    try:
        manifest = msgspec.json.decode(signed.content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError("manifest.syntax", str(error)) from error
    if manifest.format != FORMAT:
        raise RemoteProtocolError("manifest.syntax", f"the format {manifest.format[:40]!r} is not {FORMAT}")
    if len(manifest.devices) > MOST_DEVICES:
        raise RemoteProtocolError("manifest.syntax", f"more than {MOST_DEVICES} devices")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    twice = [serial for serial, n in Counter(d.serial for d in manifest.devices).items() if n > 1]
    if twice:
        raise RemoteProtocolError("manifest.duplicate", f"{twice[0]!r} stands there twice")
    for device in manifest.devices:
        try:
            named = certificates.load(device.idevid).subject
            serials = [a.value for a in named.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)]
        except (HoldfastError, *certificates.LIBRARY_ERRORS) as error:
            raise RemoteProtocolError(
                "manifest.syntax", f"the IDevID of {device.serial!r}: {error}"
            ) from error
        if serials != [device.serial]:
            raise RemoteProtocolError("manifest.syntax", f"the IDevID of {device.serial!r} names {serials}")


def fingerprint(device: ManifestDevice) -> str:
    """SHA-256 of its IDevID certificate, in hex."""
    return hashlib.sha256(device.idevid).hexdigest()
