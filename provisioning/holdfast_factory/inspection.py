"""Outgoing inspection: everything is read back from the TPM and from disk, and used once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire.brski import idevid as reading
from holdfast.wire.errors import KeyStoreError
from holdfast_factory.authority import NEVER_EXPIRES, Factory
from holdfast_factory.chip import IDEVID_HANDLE, IDEVID_NV, LOCKOUT_TRIES, SRK_HANDLE, Chip

T = TypeVar("T")


def inspect(factory: Factory, chip: Chip, serial: str, out: Path, *, srk: bool) -> None:
    """Raises KeyStoreError ``factory.inspection`` saying what is not as it must be."""
    content = chip.read_nv(IDEVID_NV) or b""
    certificate = _read(lambda: x509.load_der_x509_certificate(content), f"NV {IDEVID_NV:#010x}")
    inspect_certificate(factory, certificate, serial, out)
    public = certificate.public_key()
    _check(chip.public_key(IDEVID_HANDLE) == public, f"the key at {IDEVID_HANDLE:#x} is another one")
    with chip.using("signing a challenge"):
        inspect_key(chip.signer(IDEVID_HANDLE), certificate)
    if srk:
        _check(chip.public_key(SRK_HANDLE) is not None, f"no storage root key at {SRK_HANDLE:#x}")
    _check(chip.lockout_tries() >= LOCKOUT_TRIES, "a few power cuts would lock the TPM out")
    _check(chip.transients() == 0, "transient objects are left in the TPM")


def inspect_certificate(factory: Factory, certificate: x509.Certificate, serial: str, out: Path) -> None:
    """The certificate in the hardware and the files in *out*; raises as :func:`inspect` does."""
    chain = _read(lambda: _pem(out / "idevid-chain.pem"), "idevid-chain.pem")
    anchors = _read(lambda: _pem(out / "manufacturer-anchors.pem"), "manufacturer-anchors.pem")
    _check(bool(chain) and chain[0] == certificate, "idevid-chain.pem does not start with the IDevID")
    _check(anchors == [factory.root.certificate], "manufacturer-anchors.pem is not the root")
    _check_path([*chain, *anchors])
    _check_profile(factory, certificate, serial)


def _check_path(path: list[x509.Certificate]) -> None:
    for certificate, issuer in pairwise(path):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            name = certificate.subject.rfc4514_string()
            raise _fault(f"{name} does not chain to the root: {error or type(error).__name__}") from error


def _check_profile(factory: Factory, certificate: x509.Certificate, serial: str) -> None:
    _check(reading.serial_number(certificate) == serial, "the certificate names another serial number")
    _check(reading.masa_url(certificate) is not None, "the certificate names no MASA")
    _check(certificate.not_valid_after_utc == NEVER_EXPIRES, "the certificate expires")
    issuer = factory.idevid_ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    _check(named.value.key_identifier == issuer.value.digest, "the AKI does not name the issuing CA")


def inspect_key(signer: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    """The key in its hardware signs a fresh challenge that the certificate's key verifies."""
    public = certificate.public_key()
    challenge = secrets.token_bytes(32)
    signature = signer.sign(challenge, ec.ECDSA(hashes.SHA256()))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    try:
        public.verify(signature, challenge, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise _fault("the hardware's signature does not verify") from error


def _pem(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def _read(load: Callable[[], T], what: str) -> T:
    try:
        return load()
    except (ValueError, OSError) as error:
        raise _fault(f"{what}: {error}") from error


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _fault(otherwise)


def _fault(what: str) -> KeyStoreError:
    return KeyStoreError("factory.inspection", what)
