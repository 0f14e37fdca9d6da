"""Certificates that were checked before they were stored."""

from __future__ import annotations

from cryptography import x509

from holdfast.life.record import Anchor
from holdfast.wire.model import Chain


def load_chain(ders: tuple[bytes, ...]) -> Chain:
    """In the same order, DER to certificates."""
    return tuple(x509.load_der_x509_certificate(der) for der in ders)


def certificates_of(anchors: tuple[Anchor, ...]) -> Chain:
    """What *anchors* trust."""
    return load_chain(tuple(a.certificate for a in anchors))
