"""Whether a voucher may be believed: the pledge's checks, in order, each with its own error code.

RFC 8995 §5.6.1 and §5.6.2, RFC 8366 §5.3, and what their revision adds. Nothing of the voucher is used
before its signature and signer hold, and nothing is trusted before the last check passed.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from holdfast.wire import certificates, chain, cms, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.brski.idevid import issuer_forms
from holdfast.wire.brski.messages import Voucher
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment

VOUCHER_LIMIT: Final = 64 * 1024  # octets of CMS
CHAIN_LIMIT: Final = 10  # certificates that a registrar may show
CLOCK_SKEW: Final = timedelta(minutes=5)  # how far a MASA's clock may run ahead of a trusted one
_CERTIFICATE_LIMIT: Final = 16 * 1024  # octets
_HOST: Final = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?)+|[0-9a-f:.]{2,45}")
_SIGNER_CODES: Final = {"chain.pin": "voucher.signer-pin", "chain.device": "voucher.signer-is-device"}

ASSERTIONS: Final = frozenset({"verified", "logged", "proximity"})
"""What a voucher may assert unless policy says less; ``logged`` is what RFC 8995's own example carries."""


@dataclass(frozen=True, slots=True)
class VoucherTrust:
    """What the maker gave the device to judge vouchers by, and the owner's policy.

    ``signer_pins``: SHA-256 of the SubjectPublicKeyInfo of each key that may sign vouchers; empty means any
    certificate under ``manufacturer_anchors`` that is not a device's. ``aki``: the complete value of the own
    IDevID's AuthorityKeyIdentifier. ``allow_nonceless`` suffices only while the clock is trusted, because
    without one such a voucher can be replayed for ever; ``allow_nonceless_without_clock`` accepts even that.
    """

    manufacturer_anchors: Chain
    signer_pins: frozenset[bytes]
    serial_number: str
    aki: bytes | None
    allow_nonceless: bool = False
    assertions: frozenset[str] = ASSERTIONS
    allow_nonceless_without_clock: bool = False


@dataclass(frozen=True, slots=True)
class Vouched:
    """A voucher that passed every check.

    ``pinned`` is the domain's certificate, a temporary trust anchor; ``registrar_chain`` the path from the
    certificate that the registrar showed in TLS to it; ``created_on`` a verified statement of time.
    ``est_server``: ``host:port`` of the EST server to enroll at, for which the pinned certificate vouches.
    The registrar, for which the maker's anchors did, is not under it, and ``registrar_chain`` is empty.
    """

    voucher: bytes = field(repr=False)
    pinned: x509.Certificate
    registrar_chain: Chain
    created_on: datetime | None
    est_server: str = ""


@dataclass(frozen=True, slots=True)
class _Case:
    """What the checks of a voucher's content look at."""

    voucher: Voucher
    signing_time: datetime | None
    nonce: str
    trust: VoucherTrust
    now: Moment


def verify_voucher(
    der: bytes,
    *,
    nonce: str,
    trust: VoucherTrust,
    peer_chain: tuple[bytes, ...],
    now: Moment,
    cloud: bool = False,
) -> Vouched:
    """Judge the CMS *der* as the answer to the request with *nonce*, sent to the server with *peer_chain*.

    *peer_chain* is DER, leaf first, as seen in the handshake. *cloud*: the maker's own anchors have
    authenticated that server, so its voucher may name an EST server elsewhere. Raises TrustError or
    RemoteProtocolError ``voucher.<what failed>``.
    """
    signed = check_signature(der)
    check_content_type(signed)
    check_signer(signed, trust, now)
    case = _Case(Voucher.decode(signed.content), signed.signing_time, nonce, trust, now)
    for check in CONTENT_CHECKS:
        check(case)
    pinned = check_pinned_domain_cert(case.voucher)
    if cloud and case.voucher.est_domain is not None:
        return Vouched(der, pinned, (), case.voucher.created_on, check_est_domain(case.voucher.est_domain))
    path = check_registrar_chain(peer_chain, pinned, now)
    return Vouched(der, pinned, path, case.voucher.created_on)


def check_signature(der: bytes) -> cms.SignedContent:
    """``voucher.cms`` if it is no CMS, ``voucher.signature`` if the signature does not hold."""
    try:
        return cms.open_signed(der, limit=VOUCHER_LIMIT)
    except TrustError as error:
        raise TrustError("voucher.signature", str(error), clause="RFC 8995 §5.6.1") from error
    except RemoteProtocolError as error:
        raise RemoteProtocolError("voucher.cms", str(error), clause="RFC 8366 §5.4") from error


def check_content_type(signed: cms.SignedContent) -> None:
    """id-ct-animaJSONVoucher; id-data too, because RFC 8995's examples and early MASAs use it."""
    if signed.content_type not in (oids.CT_ANIMA_JSON_VOUCHER, oids.CT_DATA):
        raise RemoteProtocolError("voucher.content-type", signed.content_type, clause="RFC 8366 §5.4")


def check_signer(signed: cms.SignedContent, trust: VoucherTrust, now: Moment) -> None:
    """The signer leads to the maker's anchor, is pinned if pins are set, and is no device if they are not.

    ``voucher.signer-chain``, ``voucher.signer-pin``, ``voucher.signer-is-device``: no RFC names a usage for
    voucher signers, so without the last rule one stolen IDevID key could vouch for all its sisters.
    """
    rest = tuple(certificate for certificate in signed.certificates if certificate != signed.signer)
    rule = chain.Rule.voucher_signer(trust.signer_pins)
    try:
        chain.validate((signed.signer, *rest), trust.manufacturer_anchors, now, rule)
    except TrustError as error:
        code = _SIGNER_CODES.get(error.code, "voucher.signer-chain")
        raise TrustError(code, str(error), clause="RFC 8995 §5.6.1") from error


def check_serial_number(case: _Case) -> None:
    if case.voucher.serial_number != case.trust.serial_number:
        raise TrustError(
            "voucher.serial-number", f"for {case.voucher.serial_number!a}", clause="RFC 8995 §5.6.1"
        )


def check_freshness(case: _Case) -> None:
    """Exactly one of nonce and expires-on; a voucher with neither would hold for ever."""
    if (case.voucher.nonce is None) == (case.voucher.expires_on is None):
        found = "neither" if case.voucher.nonce is None else "both"
        raise RemoteProtocolError(
            "voucher.freshness", f"{found} of nonce and expires-on", clause="RFC 8366 §5.3"
        )


def check_nonce(case: _Case) -> None:
    if case.voucher.nonce is not None:
        if not hmac.compare_digest(case.voucher.nonce.encode(), case.nonce.encode()):
            raise TrustError("voucher.nonce", "not the nonce of our request", clause="RFC 8995 §5.6.1")
        return
    if not case.trust.allow_nonceless:
        raise TrustError("voucher.nonceless", "policy asks for a nonce", clause="RFC 8995 §7.2")
    if not (case.now.trusted or case.trust.allow_nonceless_without_clock):
        raise TrustError(
            "voucher.nonceless-clock", "no nonce, and no clock to see it expire", clause="RFC 8995 §2.6.1"
        )


def check_idevid_issuer(case: _Case) -> None:
    named = case.voucher.idevid_issuer
    if named is not None and (case.trust.aki is None or named not in issuer_forms(case.trust.aki)):
        raise TrustError(
            "voucher.idevid-issuer", f"for devices of issuer {named[:64].hex()}", clause="RFC 8366 §5.3"
        )


def check_expires_on(case: _Case) -> None:
    expires = case.voucher.expires_on
    if expires is not None and expires < (case.now.now if case.now.trusted else case.now.floor):
        raise TrustError("voucher.expired", f"at {expires.isoformat()}", clause="RFC 8366 §5.3")


def check_created_on(case: _Case) -> None:
    """Only a trusted clock can tell that a statement comes from the future."""
    if not case.now.trusted:
        return
    for stated in (case.voucher.created_on, case.signing_time):
        if stated is not None and stated > case.now.now + CLOCK_SKEW:
            raise TrustError("voucher.created-on", f"{stated.isoformat()} is ahead", clause="RFC 8995 §2.6.1")


def check_assertion(case: _Case) -> None:
    if case.voucher.assertion not in case.trust.assertions:
        raise TrustError(
            "voucher.assertion", f"{case.voucher.assertion!a} is not accepted", clause="RFC 8366 §5.3"
        )


def check_revocation_demand(case: _Case) -> None:
    """A device at first contact has no way to revocation data, so a voucher that demands it cannot be met."""
    if case.voucher.domain_cert_revocation_checks:
        raise TrustError(
            "voucher.domain-cert-revocation-checks", "demanded, cannot be done here", clause="RFC 8366 §5.3"
        )


CONTENT_CHECKS: Final = (
    check_serial_number,
    check_freshness,
    check_nonce,
    check_idevid_issuer,
    check_expires_on,
    check_created_on,
    check_assertion,
    check_revocation_demand,
)
"""The checks of what the voucher says, in the order of RFC 8995 §5.6.1."""


def check_pinned_domain_cert(voucher: Voucher) -> x509.Certificate:
    """Its absence means that this domain will not have us (RFC 8995 §5.6.1): the caller tries another."""
    if voucher.pinned_domain_cert is None:
        raise TrustError("voucher.pinned-domain-cert", "absent", clause="RFC 8995 §5.6.1")
    return _certificate(voucher.pinned_domain_cert, "voucher.pinned-domain-cert")


def check_est_domain(said: str) -> str:
    """``host:port`` of the EST server that the voucher names: a name, an address or an https URI of no
    more than that (the draft's flow has a name, rfc8366bis a URI)."""
    try:
        parts = urlsplit(said if "://" in said else f"https://{said}")
        host, port = parts.hostname or "", parts.port or 443
    except ValueError as error:
        raise _no_est_domain(said) from error
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme != "https" or more or not _HOST.fullmatch(host):
        raise _no_est_domain(said)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _no_est_domain(said: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        "voucher.est-domain",
        f"{said[:80]!a} is no https server",
        clause="draft-ietf-anima-brski-cloud-16 §4.2",
    )


def check_registrar_chain(peer_chain: tuple[bytes, ...], pinned: x509.Certificate, now: Moment) -> Chain:
    """Validate the chain of the provisional handshake with the pinned key as the sole anchor (§5.6.2).

    The pinned certificate may be a root, an intermediate or the registrar's own; it is the *key* that counts,
    so a registrar certificate with the pinned key is its own anchor.
    """
    if not 0 < len(peer_chain) <= CHAIN_LIMIT:
        raise TrustError(
            "voucher.registrar-chain", f"{len(peer_chain)} certificates", clause="RFC 8995 §5.6.2"
        )
    seen = tuple(_certificate(der, "voucher.registrar-chain") for der in peer_chain)
    try:
        anchor = seen[0] if spki(seen[0]) == spki(pinned) else pinned
        return chain.validate(seen, (anchor,), now, chain.Rule.tls_server_any_name())
    except HoldfastError as error:
        raise TrustError("voucher.registrar-chain", str(error), clause="RFC 8995 §5.6.2") from error


def _certificate(der: bytes, code: str) -> x509.Certificate:
    try:
        return certificates.load(der, limit=_CERTIFICATE_LIMIT)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(code, error.detail, clause=error.clause) from error
