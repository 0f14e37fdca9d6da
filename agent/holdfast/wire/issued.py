"""Checks of a certificate that a server issued, the same in every protocol.

Nothing of an answer is used before all of them hold. A protocol says by :class:`Terms` how its errors are
called and which of its clauses they break.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Final

from cryptography import x509

from holdfast.wire import chain, csr
from holdfast.wire.authorities import is_ca
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.http import printable
from holdfast.wire.model import Chain, EnrollmentRequest, Issued, Moment

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a CA's clock may run ahead of a trusted one: many date a certificate at its issue."""


_FOR_CLIENTS: Final = chain.Rule.issued()


class NamePolicy(Enum):
    """Whether the subject and SAN of a certificate may differ from what the CSR asked for."""

    SERVER_DECIDES = "server-decides"  # a registration authority names the device
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a protocol calls a broken rule.

    ``prefix`` begins every error code (``est``), ``answer`` and ``renewal`` are the clauses about an issued
    certificate and about what a renewal keeps. ``limit`` is how many certificates an answer may have,
    ``rule`` what the new one must be fit for."""

    prefix: str
    answer: str
    renewal: str
    limit: int
    rule: chain.Rule = _FOR_CLIENTS

    def code(self, what: str) -> str:
        """The error code for *what*."""
        return f"{self.prefix}.{what}"


def alternative_names(
    holder: x509.Certificate | x509.CertificateSigningRequest,
) -> frozenset[x509.GeneralName]:
    """The subjectAltName entries, if any. Raises RemoteProtocolError ``certificate.syntax``."""
    try:
        return frozenset(holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return frozenset()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise RemoteProtocolError("certificate.syntax", f"unreadable extensions: {e}"[:300]) from e


def accept_issued(
    certificates: Chain,
    req: EnrollmentRequest,
    asked: x509.CertificateSigningRequest,
    names: NamePolicy,
    now: Moment,
    *,
    terms: Terms,
) -> Issued:
    """The certificate for *asked* out of an answer, with the path to one of ``req.anchors``.

    CA certificates around the new one are tolerated and serve as intermediates. With the prefix of *terms*,
    raises RemoteProtocolError ``too-many-certificates``, ``several-certificates``, ``not-renewed``,
    ``validity``; TrustError ``key-mismatch``, ``names``. Without it, RemoteProtocolError
    ``certificate.syntax`` and what :func:`holdfast.wire.chain.validate` raises.
    """
    if len(certificates) > terms.limit:
        detail = f"{len(certificates)} certificates, limit {terms.limit}"
        raise RemoteProtocolError(terms.code("too-many-certificates"), detail, clause=terms.answer)
    leaf, others = _pick(tuple(dict.fromkeys(certificates)), asked, terms)
    if req.current is not None and leaf == req.current[0][0]:
        detail = "the answer is the certificate that was to be renewed"
        raise RemoteProtocolError(terms.code("not-renewed"), detail, clause=terms.renewal)
    if names is NamePolicy.EXACT:
        _check_names(leaf, asked, terms)
    if leaf.not_valid_before_utc >= leaf.not_valid_after_utc:
        detail = f"valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}"
        raise RemoteProtocolError(terms.code("validity"), detail, clause="RFC 5280 §4.1.2.5")
    given = tuple(dict.fromkeys((leaf, *others, *req.intermediates)))
    path = chain.validate(given, req.anchors, _when(leaf, now), terms.rule)
    return Issued(tuple(c for c in path if c == leaf or c not in req.anchors), req.anchors)


def _when(leaf: x509.Certificate, now: Moment) -> Moment:
    """The moment to judge a new certificate at: its own beginning, if that is hardly after *now*."""
    begin = leaf.not_valid_before_utc
    return replace(now, now=begin) if now.now < begin <= now.now + CLOCK_SKEW else now


def _pick(
    certificates: Chain, asked: x509.CertificateSigningRequest, terms: Terms
) -> tuple[x509.Certificate, Chain]:
    key = csr.public_bytes(asked)
    ours = [c for c in certificates if csr.public_bytes(c) == key]
    if not ours:
        detail = "no certificate in the answer is for the key of the request"
        raise TrustError(terms.code("key-mismatch"), detail, clause=terms.answer)
    strangers = [c for c in certificates if c not in ours and not is_ca(c)]
    if len(ours) > 1 or strangers:
        detail = f"{len(ours) + len(strangers)} end-entity certificates, expected one"
        raise RemoteProtocolError(terms.code("several-certificates"), detail, clause=terms.answer)
    return ours[0], tuple(c for c in certificates if c != ours[0])


def _check_names(leaf: x509.Certificate, asked: x509.CertificateSigningRequest, terms: Terms) -> None:
    try:
        issued, wanted = leaf.subject, asked.subject
    except ValueError as e:
        raise RemoteProtocolError("certificate.syntax", f"unreadable subject: {e}"[:300]) from e
    if issued != wanted:
        detail = f"subject {printable(issued.rfc4514_string())}, asked {printable(wanted.rfc4514_string())}"
        raise TrustError(terms.code("names"), detail, clause=terms.renewal)
    if (found := alternative_names(leaf)) != alternative_names(asked):
        detail = f"{len(found)} alternative names that differ from those asked for"
        raise TrustError(terms.code("names"), detail, clause=terms.renewal)
