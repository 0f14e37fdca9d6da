"""The certificate chain, and its alternates (RFC 8555 §7.4.2)."""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates
from holdfast.wire.acme.session import AcmeLimits, Session
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.http import media_type, printable
from holdfast.wire.model import Chain, Exchange, HttpResponse

PEM_CHAIN: Final = "application/pem-certificate-chain"
_CLAUSE: Final = "RFC 8555 §7.4.2"
_ALTERNATE: Final = re.compile(r'<([^<>]{1,2048})>\s*;\s*rel="?alternate"?')


def download(session: Session, url: str, limits: AcmeLimits, *, prefer: str | None = None) -> Exchange[Chain]:
    """The chain at *url*, leaf first; with *prefer*, the alternate whose top is issued by that common name.

    An alternate that cannot be had is no reason against the certificate: the default chain is as good. Raises
    RemoteProtocolError ``acme.too-large``, ``acme.type``, ``acme.chain``, ``acme.too-many-certificates``.
    """
    resp = yield from session.post(url, None, accept=PEM_CHAIN)
    chain = read_chain(resp, limits)
    if prefer is None or _issued_by(chain, prefer):
        return chain
    for link in alternates(resp)[: limits.alternates]:
        other = read_chain((yield from session.post(link, None, accept=PEM_CHAIN)), limits)
        if other[0] == chain[0] and _issued_by(other, prefer):
            return other
    return chain


def read_chain(resp: HttpResponse, limits: AcmeLimits) -> Chain:
    """The PEM certificates of an answer, in order, bounded in size and number."""
    if len(resp.body) > limits.body:
        raise RemoteProtocolError("acme.too-large", f"{len(resp.body)} octets, limit {limits.body}")
    essence, _ = media_type(resp)
    if essence != PEM_CHAIN:
        raise RemoteProtocolError(
            "acme.type", f"the chain is {printable(essence) or 'untyped'}", clause=_CLAUSE
        )
    try:
        found = x509.load_pem_x509_certificates(resp.body)
    except LIBRARY_ERRORS as error:
        raise RemoteProtocolError("acme.chain", f"{error}"[:200], clause=_CLAUSE) from error
    if len(found) > limits.certificates:
        detail = f"{len(found)} certificates, limit {limits.certificates}"
        raise RemoteProtocolError("acme.too-many-certificates", detail, clause=_CLAUSE)
    return certificates.load_all(each.public_bytes(Encoding.DER) for each in found)


def alternates(resp: HttpResponse) -> tuple[str, ...]:
    """The URLs of the Link headers with the relation ``alternate`` (RFC 8288)."""
    return tuple(m[1] for value in resp.header_all("Link") for m in _ALTERNATE.finditer(value[:8192]))


def _issued_by(chain: Chain, name: str) -> bool:
    attributes = chain[-1].issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return any(each.value == name for each in attributes)
