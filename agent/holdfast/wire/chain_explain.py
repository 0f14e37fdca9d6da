"""Why a path was refused, as a stable code and a sentence. Explains only: every way out is an error."""

from __future__ import annotations

from cryptography import x509

from holdfast.wire.algorithms import accepted_key, accepted_signature_digest, has_ml_dsa_key
from holdfast.wire.certificates import LIBRARY_ERRORS, signed_by
from holdfast.wire.chain_rules import subject_text
from holdfast.wire.errors import HoldfastError, TrustError
from holdfast.wire.model import Chain, Moment

_CLAUSE = "RFC 5280 §6.1"


def explain(chain: Chain, anchors: Chain, at: Moment, library: str) -> TrustError:
    """The error for a *chain* that the verifier refused with the text *library*.

    A date is blamed only if signatures lead to an anchor: a stranger's certificate is untrusted, whatever
    its age.
    """
    try:
        return _walk(chain, anchors, at, library)
    except LIBRARY_ERRORS as error:
        return TrustError("chain.syntax", f"unreadable certificate: {error}", clause=_CLAUSE)


def _walk(chain: Chain, anchors: Chain, at: Moment, library: str) -> TrustError:
    working, dated = chain[0], _date_fault(chain[0], at)
    pool = dict.fromkeys((*anchors, *chain[1:]))
    while working not in anchors:
        issuers = [each for each in pool if each.subject == working.issuer and each != working]
        if not issuers:
            detail = f"no certificate of {_issuer_text(working)}, which issued {subject_text(working)}"
            return TrustError("chain.untrusted", detail, clause=_CLAUSE)
        if weak := _weakness(working):
            return weak
        proven = [each for each in issuers if signed_by(working, each)]
        if not proven:
            detail = f"the signature on {subject_text(working)} is not by its issuer"
            return TrustError("chain.bad-signature", detail, clause=_CLAUSE)
        working = proven[0]
        pool = {each: None for each in pool if each not in proven}
        dated = dated or _date_fault(working, at)
    return dated or TrustError("chain.untrusted", library[:500], clause=_CLAUSE)


def _issuer_text(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string()[:200] or "(empty issuer)"


def _weakness(certificate: x509.Certificate) -> TrustError | None:
    try:
        accepted_signature_digest(certificate)
        if not has_ml_dsa_key(certificate):
            accepted_key(certificate)
    except HoldfastError as error:
        return TrustError("chain.weak", f"{subject_text(certificate)}: {error.detail}", clause=_CLAUSE)
    return None


def _date_fault(certificate: x509.Certificate, at: Moment) -> TrustError | None:
    when = at.now if at.trusted else at.floor
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end < when:
        detail = f"{subject_text(certificate)} ended {end:%Y-%m-%dT%H:%M:%SZ}"
        return TrustError("chain.expired", detail, clause="RFC 5280 §6.1.3")
    if at.trusted and when < begin:
        detail = f"{subject_text(certificate)} begins {begin:%Y-%m-%dT%H:%M:%SZ}"
        return TrustError("chain.not-yet-valid", detail, clause="RFC 5280 §6.1.3")
    return None
