"""OCSP (RFC 6960, RFC 9654): one request about one certificate, and the checks of its answer.

The library reads the structure; what makes an answer worth something is checked here: that it speaks of our
certificate, that whoever signed it may speak for the issuer, that the signature holds, that it answers this
request (nonce) or is at least fresh. An answer that does not say "revoked" or "good" says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.algorithms import Digest, accepted_key, verify
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.http import media_type, printable
from holdfast.wire.model import Exchange, HttpRequest, HttpResponse, Moment, RandomBytes
from holdfast.wire.revocation.standing import Standing, check_fresh

REQUEST_TYPE: Final = "application/ocsp-request"
RESPONSE_TYPE: Final = "application/ocsp-response"
NONCE_BYTES: Final = 32  # RFC 9654 §2.1
RESPONSE_LIMIT: Final = 65536
MOST_ANSWERS: Final = 16
MOST_CERTIFICATES: Final = 8
_CLAUSE: Final = "RFC 6960 §3.2"


@dataclass(frozen=True, slots=True)
class Question:
    """One request: whose status (``certificate`` by ``issuer``), its DER, and its nonce."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    der: bytes = field(repr=False)
    nonce: bytes


def ask(certificate: x509.Certificate, issuer: x509.Certificate, random: RandomBytes) -> Question:
    """The question about *certificate*. CertIDs are SHA-1 hashes of names, as every responder knows them
    (RFC 5019 §2.1.1); no security rests on them."""
    nonce = random(NONCE_BYTES)
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    request = builder.add_extension(x509.OCSPNonce(nonce), critical=False).build()
    return Question(certificate, issuer, request.public_bytes(Encoding.DER), nonce)


def exchange(question: Question, target: str, now: Moment) -> Exchange[Standing]:
    """POST *question* to *target* and judge the answer. Raises what :func:`judge` raises."""
    headers = (("Content-Type", REQUEST_TYPE), ("Accept", RESPONSE_TYPE))
    response = yield HttpRequest("POST", target, headers, question.der)
    return judge(read(response), question, now)


def read(response: HttpResponse) -> bytes:
    """The DER in *response*. Raises RemoteProtocolError ``ocsp.status``, ``ocsp.content-type``,
    ``ocsp.too-large``."""
    if response.status != 200:
        raise RemoteProtocolError("ocsp.status", f"the responder answers {response.status}")
    kind = media_type(response)[0]
    if kind != RESPONSE_TYPE:
        raise RemoteProtocolError("ocsp.content-type", printable(kind) or "none", clause="RFC 6960 §A.1")
    if len(response.body) > RESPONSE_LIMIT:
        raise RemoteProtocolError("ocsp.too-large", f"{len(response.body)} octets")
    return response.body


def judge(der: bytes, question: Question, now: Moment) -> Standing:
    """What the answer *der* says of the certificate of *question*.

    Raises RemoteProtocolError ``ocsp.syntax``, ``ocsp.unsuccessful``, ``ocsp.other-certificate``,
    ``ocsp.unknown``; TrustError ``ocsp.signer``, ``ocsp.signature``, ``ocsp.nonce``, ``ocsp.not-yet``,
    ``ocsp.stale`` and the ``key.`` and ``signature.`` codes of :mod:`holdfast.wire.algorithms`.
    """
    try:
        return _judge(der, question, now)
    except HoldfastError:
        raise
    except (*LIBRARY_ERRORS, OverflowError) as error:
        _unreadable(error)


def _judge(der: bytes, question: Question, now: Moment) -> Standing:
    response = ocsp.load_der_ocsp_response(der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        word = response.response_status.name.lower()
        raise RemoteProtocolError("ocsp.unsuccessful", f"the responder says {word}", clause="RFC 6960 §4.2.1")
    _check_signature(response, _signer(response, question.issuer, now))
    _check_nonce(response, question)
    single = _ours(response, question)
    check_fresh(single.this_update_utc, single.next_update_utc, now, "ocsp", _CLAUSE)
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return Standing(revoked=False, until=single.next_update_utc)
        case ocsp.OCSPCertStatus.REVOKED:
            reason = single.revocation_reason.value if single.revocation_reason is not None else ""
            at, until = single.revocation_time_utc, single.next_update_utc
            return Standing(revoked=True, at=at, reason=reason, until=until)
    raise RemoteProtocolError(
        "ocsp.unknown", "the responder does not know the certificate", clause="RFC 6960 §2.2"
    )


def _signer(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: Moment) -> x509.Certificate:
    """The certificate whose key may have signed: the issuer's, or one that it issued for just this."""
    if _named(response, issuer):
        return issuer
    for candidate in response.certificates[:MOST_CERTIFICATES]:
        if _named(response, candidate):
            _check_delegate(candidate, issuer, now)
            return candidate
    raise TrustError("ocsp.signer", "the responder is neither the issuer nor a delegate", clause=_AUTHORISED)


_AUTHORISED: Final = "RFC 6960 §4.2.2.2"


def _named(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    """Whether the responder ID names *certificate*."""
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    key = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    return response.responder_key_hash == key.digest


def _check_delegate(delegate: x509.Certificate, issuer: x509.Certificate, now: Moment) -> None:
    """RFC 6960 §4.2.2.2: issued directly by the issuer, with id-kp-OCSPSigning, and valid."""
    try:
        usages = tuple(delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = ()
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usages:
        raise TrustError("ocsp.signer", "the delegate may not sign OCSP answers", clause=_AUTHORISED)
    if delegate.issuer != issuer.subject:
        raise TrustError("ocsp.signer", "another CA than the issuer made the delegate", clause=_AUTHORISED)
    digest = delegate.signature_hash_algorithm
    if not isinstance(digest, Digest):
        raise TrustError("ocsp.signer", "the delegate's certificate is weakly signed", clause=_AUTHORISED)
    try:
        verify(accepted_key(issuer), delegate.signature, delegate.tbs_certificate_bytes, digest)
    except TrustError as error:
        detail = "the issuer did not sign the delegate's certificate"
        raise TrustError("ocsp.signer", detail, clause=_AUTHORISED) from error
    known = now.now if now.trusted else now.floor
    if known > delegate.not_valid_after_utc or (now.trusted and known < delegate.not_valid_before_utc):
        raise TrustError("ocsp.signer", "the delegate's certificate is not valid now", clause=_AUTHORISED)


def _check_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    try:
        digest = response.signature_hash_algorithm
    except UnsupportedAlgorithm as error:
        raise TrustError("ocsp.signature", str(error), clause=_CLAUSE) from error
    if not isinstance(digest, Digest):
        raise TrustError("ocsp.signature", "signed with a weak digest", clause=_CLAUSE)
    try:
        verify(accepted_key(signer), response.signature, response.tbs_response_bytes, digest)
    except TrustError as error:
        raise TrustError("ocsp.signature", error.detail, clause=_CLAUSE) from error


def _check_nonce(response: ocsp.OCSPResponse, question: Question) -> None:
    """A nonce must be ours. Without one, which RFC 9654 allows to cached answers, the dates must do."""
    try:
        nonce = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return
    if nonce != question.nonce:
        raise TrustError("ocsp.nonce", "the answer is to another request", clause="RFC 9654 §2.1")


def _ours(response: ocsp.OCSPResponse, question: Question) -> ocsp.OCSPSingleResponse:
    """The statement about our certificate: serial number and hashes of its issuer's name and key."""
    for count, single in enumerate(response.responses):
        if count >= MOST_ANSWERS:
            break
        if single.serial_number == question.certificate.serial_number and _same_issuer(single, question):
            return single
    raise RemoteProtocolError(
        "ocsp.other-certificate", "the answer speaks of other certificates", clause=_CLAUSE
    )


def _same_issuer(single: ocsp.OCSPSingleResponse, question: Question) -> bool:
    builder = ocsp.OCSPRequestBuilder()
    same = builder.add_certificate(question.certificate, question.issuer, single.hash_algorithm).build()
    hashes_of = (same.issuer_name_hash, same.issuer_key_hash)
    return (single.issuer_name_hash, single.issuer_key_hash) == hashes_of


def _unreadable(error: Exception) -> NoReturn:
    detail = f"unreadable OCSP answer: {str(error)[:200]}"
    raise RemoteProtocolError("ocsp.syntax", detail, clause="RFC 6960 §4.2.1") from error
