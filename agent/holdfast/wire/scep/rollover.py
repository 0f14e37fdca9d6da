"""GetNextCACert (RFC 8894 §4.7): the CA that comes after this one, in words that this one has signed."""

from __future__ import annotations

from holdfast.wire import cms
from holdfast.wire.authorities import is_ca
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain
from holdfast.wire.scep.authority import Authority

_CLAUSE = "RFC 8894 §4.7.1"


def read_next(body: bytes, authority: Authority, *, sha1: bool, limit: int) -> Chain:
    """The CA certificates of the next CA.

    Raises TrustError ``scep.next-ca`` unless a CA certificate of *authority* itself signed the message, and
    RemoteProtocolError ``scep.next-ca`` or ``cms.*`` if it does not hold certificates of a CA.
    """
    opened = cms.open_signed(
        body, limit=limit, candidates=authority.certificates, require_attributes=False, sha1=sha1
    )
    if opened.signer not in authority.certificates:
        raise TrustError("scep.next-ca", "the next CA is not announced by the present one", clause=_CLAUSE)
    found = tuple(c for c in cms.parse_certs_only(opened.content, limit=limit) if is_ca(c))
    if not found:
        raise RemoteProtocolError("scep.next-ca", "no CA certificate is in it", clause=_CLAUSE)
    return found
