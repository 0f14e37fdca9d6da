"""Certificate revocation lists (RFC 5280 §5, §6.3): one complete list by the certificate's own issuer."""

from __future__ import annotations

from typing import Final, NoReturn

from cryptography import x509

from holdfast.wire.algorithms import Digest, accepted_key, verify
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, Moment
from holdfast.wire.revocation.standing import Standing, check_fresh

CRL_LIMIT: Final = 1 << 20
"""The transport's own limit of a body is about that, too: a longer list is not read."""
_PEM: Final = b"-----BEGIN X509 CRL-----"
_HANDLED: Final = frozenset(
    {
        x509.CRLNumber.oid,
        x509.AuthorityKeyIdentifier.oid,
        x509.IssuingDistributionPoint.oid,
    }
)


def exchange(
    certificate: x509.Certificate, issuer: x509.Certificate, target: str, now: Moment
) -> Exchange[Standing]:
    """GET the list at *target* and look *certificate* up in it. Raises what :func:`judge` raises."""
    response = yield HttpRequest("GET", target, (("Accept", "application/pkix-crl"),))
    return judge(read(response), certificate, issuer, now)


def read(response: HttpResponse) -> bytes:
    """The list in *response*. Raises RemoteProtocolError ``crl.status``, ``crl.too-large``. The media type is
    not looked at: servers of files rarely know it."""
    if response.status != 200:
        raise RemoteProtocolError("crl.status", f"the server answers {response.status}")
    if len(response.body) > CRL_LIMIT:
        raise RemoteProtocolError("crl.too-large", f"{len(response.body)} octets, at most {CRL_LIMIT}")
    return response.body


def judge(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: Moment) -> Standing:
    """What the list *der* (or PEM) says of *certificate*.

    Raises RemoteProtocolError ``crl.syntax``, ``crl.extension``, ``crl.scope``; TrustError ``crl.issuer``,
    ``crl.signature``, ``crl.not-yet``, ``crl.stale``.
    """
    try:
        return _judge(der, certificate, issuer, now)
    except HoldfastError:
        raise
    except (*LIBRARY_ERRORS, OverflowError) as error:
        _unreadable(error)


def _judge(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: Moment) -> Standing:
    crl = x509.load_pem_x509_crl(der) if der.startswith(_PEM) else x509.load_der_x509_crl(der)
    _check_signature(crl, issuer)
    _check_scope(crl, certificate)
    check_fresh(crl.last_update_utc, crl.next_update_utc, now, "crl", "RFC 5280 §6.3.3")
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        return Standing(revoked=False, until=crl.next_update_utc)
    reason = _reason(entry)
    if reason == "removeFromCRL":
        return Standing(revoked=False, until=crl.next_update_utc)
    return Standing(revoked=True, at=entry.revocation_date_utc, reason=reason, until=crl.next_update_utc)


def _check_signature(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
    if crl.issuer != issuer.subject:
        raise TrustError("crl.issuer", "the list is another CA's", clause="RFC 5280 §6.3.3")
    digest = crl.signature_hash_algorithm
    if not isinstance(digest, Digest):
        raise TrustError("crl.signature", "signed with a weak digest", clause="RFC 5280 §5.1.1.3")
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.crl_sign:
        raise TrustError("crl.issuer", "the issuer's key may not sign lists", clause="RFC 5280 §6.3.3")
    try:
        verify(accepted_key(issuer), crl.signature, crl.tbs_certlist_bytes, digest)
    except TrustError as error:
        raise TrustError("crl.signature", error.detail, clause="RFC 5280 §5.1.1.3") from error


def _check_scope(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> None:
    """Only a complete list whose scope includes us tells anything by what it leaves out."""
    for extension in crl.extensions:
        if extension.critical and extension.oid not in _HANDLED:
            detail = f"critical extension {extension.oid.dotted_string}"
            raise RemoteProtocolError("crl.extension", detail, clause="RFC 5280 §5.2")
        scope = extension.value
        if isinstance(scope, x509.IssuingDistributionPoint) and _leaves_us_out(scope, certificate):
            detail = "the list is not for all certificates like ours"
            raise RemoteProtocolError("crl.scope", detail, clause="RFC 5280 §5.2.5")


def _leaves_us_out(scope: x509.IssuingDistributionPoint, certificate: x509.Certificate) -> bool:
    partial = (
        scope.only_contains_ca_certs
        or scope.only_contains_attribute_certs
        or scope.only_some_reasons is not None
        or scope.indirect_crl
    )
    if partial or not scope.full_name:
        return partial or scope.relative_name is not None
    named = {n.value for n in scope.full_name if isinstance(n, x509.UniformResourceIdentifier)}
    return not named & _own_points(certificate)


def _own_points(certificate: x509.Certificate) -> set[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return set()
    return {
        name.value
        for point in points
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    }


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        return ""


def _unreadable(error: Exception) -> NoReturn:
    raise RemoteProtocolError(
        "crl.syntax", f"unreadable list: {str(error)[:200]}", clause="RFC 5280 §5.1"
    ) from error
