"""Makes one factory-fresh device whose IDevID is on a PKCS#11 token, the certificate beside its key."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.keys import pkcs11_objects as objects
from holdfast.keys.api import KeySpec
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11 import Pkcs11Store
from holdfast.keys.pkcs11_objects import Which
from holdfast.keys.pkcs11_pin import Pin, Secret
from holdfast.keys.pkcs11_session import TokenSession
from holdfast.keys.pkcs11_uri import Pkcs11Uri
from holdfast.wire import csr
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast_factory import idevid, ledger
from holdfast_factory.authority import Factory
from holdfast_factory.device import Device, refuse_other_identity, ship
from holdfast_factory.files import make_private_directory, write_file
from holdfast_factory.inspection import inspect_certificate, inspect_key
from holdfast_factory.ledger import fingerprint

LABEL: Final = "idevid"
"""Label of key and certificate; ``CKA_ID`` is the same in ASCII."""


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Which token, by which module, and who gives its PIN."""

    module: Path
    uri: Pkcs11Uri
    pin: Secret = field(repr=False)

    @property
    def idevid(self) -> Pkcs11Uri:
        """The IDevID key on it."""
        return self.uri.with_object(LABEL, LABEL.encode(), "private")


def make_token_device(factory: Factory, place: TokenPlace, serial: str, out: Path, now: datetime) -> Device:
    """Give the token at *place* the identity *serial*, and write what ships with it into *out*.

    As :func:`~holdfast_factory.device.make_device`: the same token and serial again reads back what is there,
    and at the end everything is read back through a new connection. Raises ConfigError (serial),
    KeyStoreError ``factory.other-serial``, ``factory.serial-used``, ``factory.inspection``, and the errors of
    token and disk.
    """
    idevid.check_serial(serial)
    make_private_directory(out)
    session = _session(factory, place)
    try:
        present = session.run("look for an IDevID", _present)
        if present is not None:
            refuse_other_identity(factory, present, serial)
        else:
            session.run("make the IDevID key", lambda s: provide_key(s, session.manufacturer))
    finally:
        session.close()
    certificate = present or _issue(factory, place, serial, now)
    ship(factory, certificate, out)
    uri = place.idevid
    with _store(factory, place) as store:
        held = store.idevid_certificate(uri)
        inspect_certificate(factory, held, serial, out)
        signer = store.idevid(uri).signer()
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        inspect_key(signer, held)
    device = Device(
        serial=serial,
        certificate_sha256=fingerprint(certificate.public_bytes(Encoding.DER)),
        idevid_handle="",
        idevid_nv="",
        masa_url=factory.product.masa_url,
        voucher_signer=fingerprint(csr.public_bytes(factory.masa.certificate)),
        ek_certificate_sha256="",
        new=present is None,
        idevid_uri=uri.text(),
    )
    write_file(out / "device.json", msgspec.json.encode(asdict(device)) + b"\n")
    return device


def _present(session: Any) -> x509.Certificate | None:
    found = objects.certificates(session, Which.ours(LABEL))
    return found[0] if found else None


def provide_key(session: Any, manufacturer: str) -> None:
    """Make the key, unless an interrupted run did."""
    try:
        objects.private_key(session, Which.ours(LABEL))
    except KeyNotFound:
        objects.destroy(session, LABEL)
        objects.generate(session, LABEL, KeySpec(), manufacturer)


def _session(factory: Factory, place: TokenPlace) -> TokenSession:
    return TokenSession(place.module, place.uri, Pin(place.pin, factory.directory), factory.directory)


def _store(factory: Factory, place: TokenPlace) -> Pkcs11Store:
    return open_store(Pkcs11Settings(place.module, place.uri, factory.directory, place.pin))


def _issue(factory: Factory, place: TokenPlace, serial: str, now: datetime) -> x509.Certificate:
    """Prove the key, issue, enter into the ledger, write beside the key: no power cut leaves a gap."""
    with _store(factory, place) as store:
        signer = store.idevid(place.idevid).signer()
        key_print = fingerprint(csr.public_bytes(signer))
        other = ledger.other_owner(factory.directory, serial, key_print)
        if other is not None:
            raise KeyStoreError(
                "factory.serial-used",
                f"{serial!r} was given to other hardware on {other.at:%Y-%m-%d}: see {ledger.LEDGER}",
            )
        certificate = idevid.issue(
            factory, csr.build(signer, idevid.subject(factory.product, serial)), serial, now
        )
    ledger.append(factory.directory, certificate, serial, now)
    session = _session(factory, place)
    try:
        session.run("write the IDevID", lambda s: objects.put_certificate(s, LABEL, certificate))
    finally:
        session.close()
    return certificate
