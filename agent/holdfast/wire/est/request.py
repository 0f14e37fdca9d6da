"""Checks of our own request before its first octet leaves (RFC 7030 §3.5, §4.2). All faults here are ours."""

from __future__ import annotations

import base64
import hmac

from cryptography import x509

from holdfast.wire import csr, oids
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.issued import alternative_names
from holdfast.wire.model import CsrTemplate, EnrollmentRequest, Purpose, TlsInfo

_LINKING = "RFC 7030 §3.5"


def link_challenge(tls: TlsInfo) -> str:
    """The challengePassword that binds a CSR to this very link: base64 of tls-unique.

    Raises LocalProtocolError ``est.link-needs-tls12`` where the link has none: only TLS 1.2 has it, and no
    RFC gives EST another binding.
    """
    if tls.tls_unique is None:
        detail = (
            f"the server wants the CSR bound to its connection, which {tls.version} cannot; cap at TLS 1.2"
        )
        raise LocalProtocolError("est.link-needs-tls12", detail, clause=_LINKING)
    return base64.b64encode(tls.tls_unique).decode()


def changes_names(asked: x509.CertificateSigningRequest) -> bool:
    """Whether the CSR asks for other names by the ChangeSubjectName attribute (RFC 6402 §2.8)."""
    return any(a.oid.dotted_string == oids.CHANGE_SUBJECT_NAME for a in asked.attributes)


def check_request(req: EnrollmentRequest, tls: TlsInfo) -> x509.CertificateSigningRequest:
    """The parsed CSR of *req*, if it may be sent over *tls*.

    Raises LocalProtocolError ``est.csr`` (unreadable), ``est.csr-key`` (another key, or a purpose that does
    not fit the key), ``est.no-current``, ``est.reenroll-names``, ``est.link-missing`` (the wishes demand
    the link), ``est.link-stale`` (the CSR is bound to another link), ``est.link-needs-tls12``.
    """
    try:
        asked = csr.parse(req.csr)
        challenge = csr.challenge_password(asked)
        if csr.public_bytes(asked) != csr.public_bytes(req.key):
            raise LocalProtocolError("est.csr-key", "the CSR is not for the key of the request")
        if req.purpose is not Purpose.INITIAL:
            _check_renewal(req, asked)
    except (RemoteProtocolError, TrustError) as e:
        raise LocalProtocolError("est.csr", f"the CSR cannot be sent: {e}") from e
    _check_link(challenge, tls, req.template)
    return asked


def _check_link(challenge: str | None, tls: TlsInfo, template: CsrTemplate) -> None:
    if challenge is None:
        if template.link_tls_unique:
            detail = "the server wants the CSR bound to its connection, and it is not"
            raise LocalProtocolError("est.link-missing", detail, clause=_LINKING)
        return
    if not hmac.compare_digest(challenge.encode(), link_challenge(tls).encode()):
        detail = "the CSR is bound to another connection: sign it anew for this one"
        raise LocalProtocolError("est.link-stale", detail, clause=_LINKING)


def _check_renewal(req: EnrollmentRequest, asked: x509.CertificateSigningRequest) -> None:
    if req.current is None or not req.current[0]:
        raise LocalProtocolError("est.no-current", "a renewal without a certificate to renew")
    current = req.current[0][0]
    same_key = csr.public_bytes(current) == csr.public_bytes(asked)
    if same_key is not (req.purpose is Purpose.RENEW):
        detail = f"{req.purpose.value} with {'the same' if same_key else 'another'} key"
        raise LocalProtocolError("est.csr-key", detail, clause="RFC 7030 §4.2.2")
    if changes_names(asked):
        return
    if current.subject != asked.subject or alternative_names(current) != alternative_names(asked):
        detail = "subject and SAN of the CSR must be those of the certificate that it renews"
        raise LocalProtocolError("est.reenroll-names", detail, clause="RFC 7030 §4.2.2")
