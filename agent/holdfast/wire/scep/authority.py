"""GetCACert (RFC 8894 §4.2): whose certificates are these, and which one is for what?

Over plain HTTP anybody may answer. So nothing of it is used before a configured fingerprint or the domain's
anchors vouch for it. A CA proves itself by its place in a path; a registration authority is an end entity
like every device of the domain, so it needs a mark that a device does not have: see :data:`RA_USAGES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import chain as paths
from holdfast.wire import cms, oids
from holdfast.wire.authorities import is_ca
from holdfast.wire.certificates import LIBRARY_ERRORS, load
from holdfast.wire.chain_rules import Rule, subject_text
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment

RA_USAGES: Final = frozenset({oids.CMC_RA, oids.MS_CERTIFICATE_REQUEST_AGENT})
"""Extended key usages that tell a registration authority from a device when TLS does not."""

MOST: Final = 8
MOST_HELPERS: Final = 10
"""Intermediates of the domain that may help: together they stay within what path validation takes."""

_CLAUSE: Final = "RFC 8894 §4.2.1"


@dataclass(frozen=True, slots=True)
class Trust:
    """What vouches for a server's certificates.

    ``fingerprints``: SHA-256 of whole certificates (CA or RA) that an operator named. ``anchors`` are the
    domain's, ``intermediates`` help to reach them. ``tls``: the connection itself was authenticated, so an RA
    needs no mark.
    """

    fingerprints: frozenset[bytes] = frozenset()
    anchors: Chain = ()
    intermediates: Chain = ()
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """A SCEP server's certificates, every one of them vouched for.

    ``ca`` issues; ``recipient`` is whom requests are encrypted for, None if no RSA key is among them;
    ``signers`` may sign replies; ``certificates`` are all CA certificates, the fingerprinted ones first.
    """

    ca: x509.Certificate
    recipient: x509.Certificate | None
    signers: Chain
    certificates: Chain


def read_certificates(body: bytes) -> Chain:
    """One DER certificate, or several in a degenerate SignedData. Servers mix up the media types, so what
    it is decides. Raises RemoteProtocolError ``scep.ca-certificates`` and those of the readers."""
    try:
        found: Chain = (load(body),)
    except RemoteProtocolError as single:
        try:
            found = cms.parse_certs_only(body)
        except RemoteProtocolError as several:
            detail = f"neither a certificate ({single.detail[:120]}) nor a bag ({several.detail[:120]})"
            raise RemoteProtocolError("scep.ca-certificates", detail, clause=_CLAUSE) from several
    if len(found) > MOST:
        detail = f"{len(found)} certificates, at most {MOST} are read"
        raise RemoteProtocolError("scep.ca-certificates", detail, clause=_CLAUSE)
    return found


def authenticate(certificates: Chain, trust: Trust, now: Moment) -> Authority:
    """Those of *certificates* that *trust* vouches for, by their part.

    Raises TrustError ``scep.fingerprint``, ``scep.ca-untrusted``, ``scep.ra-unmarked``.
    """
    pinned = tuple(c for c in certificates if fingerprint(c) in trust.fingerprints)
    roots = tuple(dict.fromkeys((*(c for c in pinned if is_ca(c)), *trust.anchors)))
    given = (*certificates, *trust.intermediates[:MOST_HELPERS])
    reaching = tuple(c for c in certificates if c in pinned or _reaches(c, given, roots, now))
    cas = tuple(c for c in reaching if is_ca(c))
    ras = tuple(c for c in reaching if not is_ca(c) and _may_be_ra(c, pinned, trust))
    if not ras and len(cas) < max(1, len(reaching)):
        raise _nobody(certificates, trust, reaching)
    issuers = cas or tuple(c for c in trust.intermediates + trust.anchors if c.subject == ras[0].issuer)
    if not issuers:
        detail = f"{subject_text(ras[0])}: its issuer is not there"
        raise TrustError("scep.ca-untrusted", detail, clause=_CLAUSE)
    answering = ras or cas
    ordered = tuple(dict.fromkeys((*(c for c in pinned if c in cas), *cas)))
    return Authority(_issuing(issuers, ras), _recipient(answering), tuple(filter(_signs, answering)), ordered)


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 over the DER certificate (RFC 8894 §2.2 leaves the hash to the parties)."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _reaches(certificate: x509.Certificate, given: Chain, roots: Chain, now: Moment) -> bool:
    if not roots:
        return False
    try:
        paths.validate((certificate, *given), roots, now, Rule.authority())
    except TrustError:
        return False
    return True


def _may_be_ra(certificate: x509.Certificate, pinned: Chain, trust: Trust) -> bool:
    return trust.tls or certificate in pinned or bool(_usages(certificate) & RA_USAGES)


def _nobody(certificates: Chain, trust: Trust, reaching: Chain) -> TrustError:
    shown = "; ".join(f"{subject_text(c)} {fingerprint(c).hex()}" for c in certificates[:4])
    unmarked = [c for c in reaching if not is_ca(c)]
    if unmarked:
        detail = (
            f"{subject_text(unmarked[0])} belongs to the domain but does not say that it is a registration "
            f"authority, and the connection is plain HTTP: name its SHA-256 {fingerprint(unmarked[0]).hex()} "
            "as a fingerprint if it is right"
        )
        return TrustError("scep.ra-unmarked", detail, clause=_CLAUSE)
    if trust.fingerprints:
        detail = f"no certificate has the configured fingerprint or leads to an anchor: {shown}"
        return TrustError("scep.fingerprint", detail, clause="RFC 8894 §2.2")
    return TrustError(
        "scep.ca-untrusted", f"nothing leads to an anchor of the domain: {shown}", clause=_CLAUSE
    )


def _issuing(cas: Chain, ras: Chain) -> x509.Certificate:
    """The CA that signed the RA, else the lowest one."""
    for ra in ras:
        for ca in cas:
            if ca.subject == ra.issuer:
                return ca
    above = {ca.issuer.public_bytes() for ca in cas if ca.issuer != ca.subject}
    return next((ca for ca in cas if ca.subject.public_bytes() not in above), cas[0])


def _recipient(answering: Chain) -> x509.Certificate | None:
    """Whom to encrypt for: the certificate whose keyUsage says so, else any with an RSA key (NDES and CAs
    that play the RA do not always say it)."""
    able = [c for c in answering if isinstance(_public(c), rsa.RSAPublicKey)]
    saying = [c for c in able if _allows(c, "key_encipherment", unsaid=True)]
    fallback = [c for c in able if is_ca(c)]
    return next(iter((*saying, *fallback, *able)), None)


def _signs(certificate: x509.Certificate) -> bool:
    return is_ca(certificate) or _allows(certificate, "digital_signature", unsaid=True)


def _allows(certificate: x509.Certificate, usage: str, *, unsaid: bool) -> bool:
    try:
        value = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return unsaid
    return bool(getattr(value, usage))


def _usages(certificate: x509.Certificate) -> frozenset[str]:
    try:
        value: Iterable[x509.ObjectIdentifier] = certificate.extensions.get_extension_for_class(
            x509.ExtendedKeyUsage
        ).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(each.dotted_string for each in value)


def _public(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except LIBRARY_ERRORS:
        return None
