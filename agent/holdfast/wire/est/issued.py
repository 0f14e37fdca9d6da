"""Checks of a certificate that an EST server issued (RFC 7030 §4.2.3 and what every protocol owes, §1).

Nothing of an answer is used before all of them hold.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Final

from cryptography import x509

from holdfast.wire import chain, csr
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.est.authorities import is_ca
from holdfast.wire.http import printable
from holdfast.wire.model import Chain, EnrollmentRequest, Issued, Moment

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a CA's clock may run ahead of a trusted one: many date a certificate at its issue."""

_CLAUSE: Final = "RFC 7030 §4.2.3"


class NamePolicy(Enum):
    """Whether the subject and SAN of a certificate may differ from what the CSR asked for."""

    SERVER_DECIDES = "server-decides"  # a registration authority names the device
    EXACT = "exact"


def alternative_names(
    holder: x509.Certificate | x509.CertificateSigningRequest,
) -> frozenset[x509.GeneralName]:
    """The subjectAltName entries, if any. Raises RemoteProtocolError ``est.certificate``."""
    try:
        return frozenset(holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return frozenset()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise RemoteProtocolError("est.certificate", f"unreadable extensions: {e}"[:300]) from e


def accept_issued(
    certificates: Chain,
    req: EnrollmentRequest,
    asked: x509.CertificateSigningRequest,
    names: NamePolicy,
    now: Moment,
    *,
    limit: int,
) -> Issued:
    """The certificate for *asked* out of an answer, with the path to one of ``req.anchors``.

    RFC 7030 has the server send the new certificate alone; CA certificates around it are tolerated and
    serve as intermediates. Raises RemoteProtocolError ``est.too-many-certificates``,
    ``est.several-certificates``, ``est.not-renewed``, ``est.validity``, ``est.certificate``; TrustError
    ``est.key-mismatch``, ``est.names`` and the codes of :func:`holdfast.wire.chain.validate`.
    """
    if len(certificates) > limit:
        detail = f"{len(certificates)} certificates, limit {limit}"
        raise RemoteProtocolError("est.too-many-certificates", detail, clause=_CLAUSE)
    leaf, others = _pick(tuple(dict.fromkeys(certificates)), asked)
    if req.current is not None and leaf == req.current[0][0]:
        detail = "the answer is the certificate that was to be renewed"
        raise RemoteProtocolError("est.not-renewed", detail, clause="RFC 7030 §4.2.2")
    if names is NamePolicy.EXACT:
        _check_names(leaf, asked)
    if leaf.not_valid_before_utc >= leaf.not_valid_after_utc:
        detail = f"valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}"
        raise RemoteProtocolError("est.validity", detail, clause="RFC 5280 §4.1.2.5")
    given = tuple(dict.fromkeys((leaf, *others, *req.intermediates)))
    path = chain.validate(given, req.anchors, _when(leaf, now), chain.Rule.issued())
    return Issued(tuple(c for c in path if c == leaf or c not in req.anchors), req.anchors)


def _when(leaf: x509.Certificate, now: Moment) -> Moment:
    """The moment to judge a new certificate at: its own beginning, if that is hardly after *now*."""
    begin = leaf.not_valid_before_utc
    return replace(now, now=begin) if now.now < begin <= now.now + CLOCK_SKEW else now


def _pick(certificates: Chain, asked: x509.CertificateSigningRequest) -> tuple[x509.Certificate, Chain]:
    key = csr.public_bytes(asked)
    ours = [c for c in certificates if csr.public_bytes(c) == key]
    if not ours:
        detail = "no certificate in the answer is for the key of the request"
        raise TrustError("est.key-mismatch", detail, clause=_CLAUSE)
    strangers = [c for c in certificates if c not in ours and not is_ca(c)]
    if len(ours) > 1 or strangers:
        detail = f"{len(ours) + len(strangers)} end-entity certificates, expected one"
        raise RemoteProtocolError("est.several-certificates", detail, clause=_CLAUSE)
    return ours[0], tuple(c for c in certificates if c != ours[0])


def _check_names(leaf: x509.Certificate, asked: x509.CertificateSigningRequest) -> None:
    try:
        issued, wanted = leaf.subject, asked.subject
    except ValueError as e:
        raise RemoteProtocolError("est.certificate", f"unreadable subject: {e}"[:300]) from e
    if issued != wanted:
        detail = f"subject {printable(issued.rfc4514_string())}, asked {printable(wanted.rfc4514_string())}"
        raise TrustError("est.names", detail, clause="RFC 7030 §4.2.2")
    if (found := alternative_names(leaf)) != alternative_names(asked):
        detail = f"{len(found)} alternative names that differ from those asked for"
        raise TrustError("est.names", detail, clause="RFC 7030 §4.2.2")
