"""Where a certificate says that its status can be asked: OCSP responders (AIA) and CRLs (CDP), by HTTP.

The answers are signed, so the way to them needs no TLS (RFC 6960 appendix A.1, RFC 5280 §4.2.1.13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from holdfast.wire.certificates import LIBRARY_ERRORS

MOST: Final = 4
"""So many places of each kind are asked, in the order of the certificate."""
LONGEST: Final = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """One place on the network: ``host`` without brackets, ``target`` in origin form."""

    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """As the certificate spells it, but for what is default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.target}"


def ocsp_places(certificate: x509.Certificate) -> tuple[Place, ...]:
    """The OCSP responders of *certificate*; what is not plain HTTP is left out."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
        return ()
    wanted = AuthorityInformationAccessOID.OCSP
    return _places([a.access_location for a in access if a.access_method == wanted])


def crl_places(certificate: x509.Certificate) -> tuple[Place, ...]:
    """The CRLs of *certificate* that its own issuer signs for all reasons; others are left out."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
        return ()
    names: list[x509.GeneralName] = []
    for point in points:
        if point.full_name and point.crl_issuer is None and point.reasons is None:
            names += point.full_name
    return _places(names)


def _places(names: list[x509.GeneralName]) -> tuple[Place, ...]:
    found = (_place(n.value) for n in names if isinstance(n, x509.UniformResourceIdentifier))
    return tuple(dict.fromkeys(p for p in found if p is not None))[:MOST]


def _place(url: str) -> Place | None:
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        return None
    if parts.scheme.lower() != "http" or not parts.hostname or "@" in parts.netloc:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.hostname, port, target)
