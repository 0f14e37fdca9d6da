"""Certificates that were checked before they were stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.record import Anchor, Provenance
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain


def load_chain(ders: tuple[bytes, ...]) -> Chain:
    """In the same order, DER to certificates."""
    return tuple(x509.load_der_x509_certificate(der) for der in ders)


def configured(path: Path) -> tuple[Anchor, ...]:
    """The anchors in a PEM file of the operator's. Raises ConfigError that names it."""
    found = read_certificates(path)
    since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return tuple(Anchor(c.public_bytes(Encoding.DER), Provenance.CONFIGURED, since) for c in found)


def read_certificates(path: Path) -> Chain:
    """The certificates of a PEM file. Raises ConfigError that names the file."""
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError("config.certificates", f"{path}: {error}") from error


def certificates_of(anchors: tuple[Anchor, ...]) -> Chain:
    """What *anchors* trust."""
    return load_chain(tuple(a.certificate for a in anchors))
