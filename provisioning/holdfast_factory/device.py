"""Makes one factory-fresh device: an IDevID key in its TPM, the certificate in NV, the anchors beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import csr
from holdfast.wire.brski import idevid as reading
from holdfast.wire.errors import HoldfastError, KeyStoreError
from holdfast_factory import idevid, ledger
from holdfast_factory.authority import Factory
from holdfast_factory.chip import IDEVID_HANDLE, IDEVID_NV, Chip
from holdfast_factory.files import make_private_directory, write_file
from holdfast_factory.inspection import inspect
from holdfast_factory.ledger import fingerprint


@dataclass(frozen=True, slots=True)
class Device:
    """What left the line. ``new`` is False if the TPM held this IDevID already. Handles are numbers as the
    agent's configuration spells them, and empty where the IDevID is on a token, at ``idevid_uri``;
    ``voucher_signer`` is the SHA-256 of the MASA signer's SPKI, in hex."""

    serial: str
    certificate_sha256: str
    idevid_handle: str
    idevid_nv: str
    masa_url: str
    voucher_signer: str
    ek_certificate_sha256: str
    new: bool
    idevid_uri: str = ""


def make_device(
    factory: Factory, tcti: str, serial: str, out: Path, now: datetime, *, srk: bool = True
) -> Device:
    """Give the TPM at *tcti* the identity *serial*, and write what ships with the device into *out*.

    *out* gets ``idevid.pem``, ``idevid-chain.pem`` (leaf, then issuing CA), ``manufacturer-anchors.pem`` and
    ``device.json``. *srk* also provisions the standard storage root key. The same TPM and serial again
    reads back what is there. At the end everything is read back through a new connection.

    Raises ConfigError (serial), KeyStoreError ``factory.other-serial``, ``factory.serial-used``,
    ``factory.handle-taken``,
    ``factory.nv-taken``, ``factory.inspection``, and the errors of the TPM and of the directories.
    """
    idevid.check_serial(serial)
    make_private_directory(out)
    with Chip(tcti) as chip:
        present = _installed(factory, chip, serial)
        chip.provision_lockout()
        if srk:
            chip.provision_srk()
        certificate = present or _issue(factory, chip, serial, now)
    ship(factory, certificate, out)
    with Chip(tcti) as chip:
        inspect(factory, chip, serial, out, srk=srk)
        ek = chip.ek_certificate()
    device = Device(
        serial=serial,
        certificate_sha256=fingerprint(certificate.public_bytes(Encoding.DER)),
        idevid_handle=f"{IDEVID_HANDLE:#010x}",
        idevid_nv=f"{IDEVID_NV:#010x}",
        masa_url=factory.product.masa_url,
        voucher_signer=fingerprint(csr.public_bytes(factory.masa.certificate)),
        ek_certificate_sha256=fingerprint(ek) if ek else "",
        new=present is None,
    )
    write_file(out / "device.json", msgspec.json.encode(asdict(device)) + b"\n")
    return device


def _installed(factory: Factory, chip: Chip, serial: str) -> x509.Certificate | None:
    """The certificate of an earlier run, None on a blank TPM. The IDevID key exists on return.

    What a power cut left half written counts as none, but only for a key that the ledger knows: the NV of
    somebody else is never overwritten.
    """
    content = chip.read_nv(IDEVID_NV)
    present = _certificate(content) if content else None
    if present is not None:
        refuse_other_identity(factory, present, serial)
    key = chip.provision_idevid()
    key_print = fingerprint(csr.public_bytes(key))
    other = ledger.other_owner(factory.directory, serial, key_print)
    if other is not None:
        raise KeyStoreError(
            "factory.serial-used",
            f"{serial!r} was given to another TPM on {other.at:%Y-%m-%d}: see {ledger.LEDGER}",
        )
    if content and present is None and not ledger.knows_key(factory.directory, key_print):
        raise KeyStoreError("factory.nv-taken", f"NV {IDEVID_NV:#010x} holds what is no certificate")
    if present is not None and present.public_key() != key:
        raise KeyStoreError(
            "factory.handle-taken", f"the certificate in NV is not for the key at {IDEVID_HANDLE:#010x}"
        )
    return present


def ship(factory: Factory, certificate: x509.Certificate, out: Path) -> None:
    """Write the certificates that go with the device into *out*."""
    write_file(out / "idevid.pem", certificate.public_bytes(Encoding.PEM))
    write_file(
        out / "idevid-chain.pem",
        certificate.public_bytes(Encoding.PEM) + factory.idevid_ca.certificate.public_bytes(Encoding.PEM),
    )
    write_file(out / "manufacturer-anchors.pem", factory.root.certificate.public_bytes(Encoding.PEM))


def refuse_other_identity(factory: Factory, present: x509.Certificate, serial: str) -> None:
    """One device has one identity, from one factory. Raises KeyStoreError ``factory.other-serial``."""
    try:
        held = reading.serial_number(present)
    except HoldfastError as error:
        raise KeyStoreError("factory.other-serial", "the hardware holds a foreign IDevID") from error
    if held != serial:
        raise KeyStoreError(
            "factory.other-serial", f"this hardware is device {held!r} already, it cannot become {serial!r}"
        )
    try:
        present.verify_directly_issued_by(factory.idevid_ca.certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        issuer = present.issuer.rfc4514_string()
        raise KeyStoreError("factory.other-serial", f"it got {serial!r} from {issuer}") from error


def _certificate(content: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(content)
    except ValueError:
        return None


def _issue(factory: Factory, chip: Chip, serial: str, now: datetime) -> x509.Certificate:
    """Prove the key, issue, enter into the ledger, write to NV: no power cut leaves a gap."""
    signer = chip.signer(IDEVID_HANDLE)
    with chip.using("signing the certificate request"):
        request = csr.build(signer, idevid.subject(factory.product, serial))
    certificate = idevid.issue(factory, request, serial, now)
    ledger.append(factory.directory, certificate, serial, now, ek_certificate=chip.ek_certificate() or b"")
    chip.write_nv(IDEVID_NV, certificate.public_bytes(Encoding.DER))
    return certificate
