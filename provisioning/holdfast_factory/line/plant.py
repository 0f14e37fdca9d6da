"""What a line has of its factory: the product, the CA's certificates, its own signer, and perhaps the CA's
key.

A line whose CA stands elsewhere has no ``idevid-ca-key.pem`` and no HSM. It writes requests out, signed by
its ``line-signer``, and takes certificates in that ``ca-signer`` signed for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.errors import ConfigError, StateCorrupt
from holdfast_factory import authority
from holdfast_factory.authority import IDEVID_CA, NEVER_EXPIRES, ROOT, Authority, PemKeys, Product
from holdfast_factory.files import make_private_directory, write_file
from holdfast_factory.line import hsm
from holdfast_factory.line.hsm import Hsm, HsmKeys

LINE_SIGNER: Final = "line-signer"
CA_SIGNER: Final = "ca-signer"
_SIGNERS: Final = {LINE_SIGNER: "Factory Line", CA_SIGNER: "IDevID CA Office"}


@dataclass(frozen=True, slots=True)
class Plant:
    """``issuing`` is the key of ``issuer``, None on a line whose CA is elsewhere. ``signer`` signs
    checkpoints, manifests and requests of this line; ``ca_signer`` is who signs for certificates from
    elsewhere."""

    directory: Path
    product: Product
    root: x509.Certificate
    issuer: x509.Certificate
    signer: Authority
    ca_signer: x509.Certificate
    issuing: ec.EllipticCurvePrivateKey | None


def init_plant(directory: Path, product: Product, now: datetime, where: Hsm | None = None) -> None:
    """Make the manufacturer's PKI in *directory*, or complete what is there; CA keys in the HSM *where*.

    Raises ConfigError ``factory.other-product``, ``factory.other-keys``.
    """
    made = (directory / authority.SETTINGS).exists()
    present = hsm.keys_of(directory)
    if made and where is not None and present is None:
        raise ConfigError("factory.other-keys", f"{directory} has its keys in files: use another directory")
    if where is not None and present is None:
        make_private_directory(directory)
        present = HsmKeys(where, directory)
    try:
        if where is not None and not made:
            hsm.write_settings(directory, where)
        factory = authority.init_factory(directory, product, now, present)
        for name, title in _SIGNERS.items():
            if not (directory / f"{name}.pem").exists():
                authority.make_authority(factory, name, title, now, NEVER_EXPIRES, ca=False)
    finally:
        if present is not None:
            present.close()


def hand_out(directory: Path, out: Path) -> None:
    """Write into *out* what a line needs that is to work without the CA's key."""
    make_private_directory(out)
    public = [f"{name}.pem" for name in (ROOT, IDEVID_CA, LINE_SIGNER, CA_SIGNER)]
    for name in (*public, f"{LINE_SIGNER}-key.pem", authority.SETTINGS):
        content = _read(directory / name)
        write_file(out / name, content, private=name.endswith("-key.pem"))


@contextmanager
def open_plant(directory: Path) -> Iterator[Plant]:
    """Open what :func:`init_plant` or :func:`hand_out` made, and the HSM if there is one, until the block
    ends.

    Raises ConfigError ``factory.missing``, StateCorrupt ``factory.corrupt``, and the errors of the HSM.
    """
    product = authority.read_product(directory)
    root, issuer, ca_signer = (
        _certificate(directory / f"{name}.pem") for name in (ROOT, IDEVID_CA, CA_SIGNER)
    )
    signer = authority.load_authority(directory, LINE_SIGNER)
    try:
        for each in (issuer, ca_signer, signer.certificate):
            each.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise StateCorrupt("factory.corrupt", f"{directory}: a certificate is not the root's") from error
    home = hsm.keys_of(directory)
    try:
        keys = home or (PemKeys(directory) if (directory / f"{IDEVID_CA}-key.pem").exists() else None)
        issuing = None if keys is None else keys.load(IDEVID_CA)
        if issuing is not None and issuing.public_key() != issuer.public_key():
            raise StateCorrupt("factory.corrupt", f"{directory}: the CA's key is not that of {IDEVID_CA}.pem")
        yield Plant(directory, product, root, issuer, signer, ca_signer, issuing)
    finally:
        if home is not None:
            home.close()


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise StateCorrupt("factory.corrupt", f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        text = f"{path}: {error.strerror}; run holdfast-factory ca init {path.parent}"
        raise ConfigError("factory.missing", text) from error
