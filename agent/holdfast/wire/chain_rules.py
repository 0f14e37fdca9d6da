"""What the end of a valid path must be fit for: names and usages for each purpose.

A rule looks at the leaf alone. :mod:`holdfast.wire.chain` has proved the path before a rule is asked.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire import oids
from holdfast.wire.algorithms import spki
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import TrustError

_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
_ANY: Final = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string
_DEVICE_NAMES: Final = frozenset({oids.HARDWARE_MODULE_NAME, oids.PERMANENT_IDENTIFIER})
_NO_NAMES: Final = x509.SubjectAlternativeName([])
E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a certificate is to be used for. Made by the constructors below, not by hand.

    ``usages``: acceptable extended key usages, dotted; empty: any. ``usage_required``: an absent extension
    is not enough; ``usage_unless_pinned``: it is for a leaf that is itself the anchor alone.
    ``issuer_usages``: what an issuer restricted by its own extension must at least allow; empty: any.
    ``host``: DNS name or IP address that the leaf must carry; ``host_unless``: a usage that stands in for the
    name. ``pins``: SHA-256 of the only SPKIs accepted; ``device_refused``: a device's own certificate is not
    accepted. ``any_part``: a CA may stand at the end as well, and which usages it needs is the caller's
    question. ``usage_unless_ca``: a CA needs no usage; ``ml_dsa``: the leaf's key may be of that kind.
    ``signs``: a keyUsage, if there is one, must allow signatures.
    """

    purpose: str
    usages: frozenset[str] = frozenset()
    usage_required: bool = False
    usage_unless_pinned: bool = False
    issuer_usages: frozenset[str] = frozenset()
    host: str | None = None
    host_unless: str | None = None
    pins: frozenset[bytes] = frozenset()
    device_refused: bool = False
    ca_refused: bool = False
    any_part: bool = False
    usage_unless_ca: bool = False
    ml_dsa: bool = False
    signs: bool = True

    @classmethod
    def tls_server(cls, name: str, *, allow_cmcra: bool) -> Rule:
        """A TLS server called *name*. With *allow_cmcra* (explicit anchors only) the cmcRA usage suffices
        without the name (RFC 7030 §3.6.1)."""
        extra = {oids.CMC_RA} if allow_cmcra else set()
        return cls(
            "tls server",
            usages=frozenset({_SERVER} | extra),
            issuer_usages=frozenset({_SERVER} | extra),
            host=name,
            host_unless=oids.CMC_RA if allow_cmcra else None,
        )

    @classmethod
    def tls_server_any_name(cls) -> Rule:
        """A TLS server that a pinned certificate vouches for, whatever its name (RFC 8995 §5.6.2).

        Without a name to compare, the usage alone tells a registrar from a device of the same domain. So a
        certificate below a pinned CA must state one; the pinned certificate itself needs none.
        """
        usages = frozenset({_SERVER, oids.CMC_RA})
        return cls("tls server", usages=usages, usage_unless_pinned=True, issuer_usages=usages)

    @classmethod
    def registrar(cls) -> Rule:
        """A registration authority: cmcRA must be there (RFC 8995 §5.5.4)."""
        wanted = frozenset({oids.CMC_RA})
        return cls("registrar", usages=wanted, usage_required=True, issuer_usages=wanted | {_SERVER})

    @classmethod
    def voucher_signer(cls, pins: frozenset[bytes] = frozenset()) -> Rule:
        """A MASA. *pins* are SHA-256 hashes of signer SPKIs.

        RFC 8995 defines no usage for voucher signing, and devices may live under the same root. So without
        pins anything that looks like a device (subject serialNumber, MASA URL, HardwareModuleName,
        PermanentIdentifier) is refused; a MASA certificate that does look so must be pinned.
        """
        return cls("voucher signer", pins=pins, device_refused=not pins)

    @classmethod
    def authority(cls) -> Rule:
        """A CA or an authority that answers for it. What it may do there its protocol judges."""
        return cls("authority", any_part=True)

    @classmethod
    def message_authority(cls, *, pinned: bool) -> Rule:
        """Who may sign CMP and CMC messages: a CA, or whom cmcCA or cmcRA says so of (RFC 9810 §8.10).

        Without that any device of the domain could answer for its CA. *pinned*: the operator has named it.
        """
        usages = frozenset() if pinned else frozenset({oids.CMC_CA, oids.CMC_RA})
        return cls(
            "message authority",
            usages=usages,
            usage_required=not pinned,
            usage_unless_ca=True,
            ml_dsa=True,
        )

    @classmethod
    def attestation_key(cls) -> Rule:
        """A TPM's attestation key (WebAuthn §8.3.1): the usage tcg-kp-AIKCertificate must be there."""
        wanted = frozenset({oids.TCG_AIK_CERTIFICATE})
        return cls(
            "attestation key", usages=wanted, usage_required=True, issuer_usages=wanted, ca_refused=True
        )

    @classmethod
    def endorsement_key(cls) -> Rule:
        """A TPM's endorsement key (TCG EK Credential Profile §3.2.16): it encrypts and never signs."""
        wanted = frozenset({oids.TCG_EK_CERTIFICATE})
        return cls("endorsement key", usages=wanted, issuer_usages=wanted, ca_refused=True, signs=False)

    @classmethod
    def client(cls) -> Rule:
        """A TLS client."""
        wanted = frozenset({_CLIENT})
        return cls("tls client", usages=wanted, issuer_usages=wanted)

    @classmethod
    def issued(cls) -> Rule:
        """A certificate that was just issued to us: never a CA, and usable as a TLS client."""
        wanted = frozenset({_CLIENT})
        return cls("issued certificate", usages=wanted, issuer_usages=wanted, ca_refused=True)

    @classmethod
    def issued_server(cls) -> Rule:
        """A certificate that was just issued to us for a server of ours: never a CA."""
        wanted = frozenset({_SERVER})
        return cls("issued server certificate", usages=wanted, issuer_usages=wanted, ca_refused=True)

    def permits_issuer(self, issuer: x509.ExtendedKeyUsage | None) -> bool:
        """Whether a CA whose own usages are *issuer* may stand in a path for this purpose.

        RFC 5280 leaves this open; OpenSSL, Windows and browsers all hold CAs to it.
        """
        if issuer is None or not self.issuer_usages:
            return True
        allowed = {usage.dotted_string for usage in issuer}
        return bool(allowed & (self.issuer_usages | {_ANY}))

    def check(self, leaf: x509.Certificate, *, is_anchor: bool) -> None:
        """Raise :class:`TrustError` (``chain.is-ca``, ``chain.usage``, ``chain.name``, ``chain.pin``,
        ``chain.device``, ``chain.syntax``) unless *leaf* is fit. *is_anchor*: it was itself pinned."""
        if self.pins and hashlib.sha256(spki(leaf)).digest() not in self.pins:
            raise TrustError("chain.pin", f"{subject_text(leaf)} is not a pinned {self.purpose}")
        try:
            if self.device_refused:
                _refuse_device(leaf)
            if self.any_part:
                return
            if self.ca_refused or not (is_anchor or self.pins or self.usage_unless_ca):
                _refuse_ca(leaf)
            self._check_usage(leaf, is_anchor=is_anchor)
            self._check_host(leaf)
        except LIBRARY_ERRORS as error:
            raise TrustError("chain.syntax", f"unreadable extension: {error}") from error

    def _check_usage(self, leaf: x509.Certificate, *, is_anchor: bool) -> None:
        usage = _extension(leaf, x509.KeyUsage)
        committed = usage is not None and usage.content_commitment and self.purpose == "voucher signer"
        if self.signs and usage is not None and not (usage.digital_signature or committed):
            detail = f"{self.purpose}: keyUsage without digitalSignature"
            raise TrustError("chain.usage", detail, clause="RFC 5280 §4.2.1.3")
        extended = _extension(leaf, x509.ExtendedKeyUsage)
        required = self.usage_required or (self.usage_unless_pinned and not is_anchor)
        if not self.usages or (extended is None and not required):
            return
        if self.usage_unless_ca and _is_ca(leaf):
            return
        found = {each.dotted_string for each in extended or ()}
        if not found & self.usages:
            detail = f"{self.purpose}: extended key usage {sorted(found)}, needs one of {sorted(self.usages)}"
            raise TrustError("chain.usage", detail, clause="RFC 5280 §4.2.1.12")

    def _check_host(self, leaf: x509.Certificate) -> None:
        if self.host is None:
            return
        extended = _extension(leaf, x509.ExtendedKeyUsage) or ()
        if self.host_unless in {each.dotted_string for each in extended}:
            return
        names = _extension(leaf, x509.SubjectAlternativeName) or _NO_NAMES
        if not _matches(self.host, names):
            detail = f"the certificate is not for {self.host}"
            raise TrustError("chain.name", detail, clause="RFC 9525 §6.3")


def subject_text(certificate: x509.Certificate) -> str:
    """The subject for a person, bounded; a placeholder if it cannot be read."""
    try:
        return certificate.subject.rfc4514_string()[:200] or "(empty subject)"
    except LIBRARY_ERRORS:
        return "(unreadable subject)"


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_ca(leaf: x509.Certificate) -> bool:
    constraints = _extension(leaf, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _refuse_ca(leaf: x509.Certificate) -> None:
    usage = _extension(leaf, x509.KeyUsage)
    if _is_ca(leaf) or (usage is not None and usage.key_cert_sign):
        raise TrustError("chain.is-ca", f"{subject_text(leaf)} is a CA", clause="RFC 5280 §4.2.1.9")


def _refuse_device(leaf: x509.Certificate) -> None:
    names = _extension(leaf, x509.SubjectAlternativeName) or _NO_NAMES
    others = {other.type_id.dotted_string for other in names.get_values_for_type(x509.OtherName)}
    present = {extension.oid.dotted_string for extension in leaf.extensions}
    serial = leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if serial or others & _DEVICE_NAMES or oids.MASA_URL in present:
        detail = f"{subject_text(leaf)} looks like a device, which may not sign vouchers unless pinned"
        raise TrustError("chain.device", detail, clause="RFC 8995 §5.6.1")


def _matches(host: str, names: x509.SubjectAlternativeName) -> bool:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        wanted = host.lower().removesuffix(".")
        return any(_matches_dns(wanted, each) for each in names.get_values_for_type(x509.DNSName))
    return address in names.get_values_for_type(x509.IPAddress)


def _matches_dns(wanted: str, pattern: str) -> bool:
    """RFC 9525 §6.3: whole labels; a wildcard is the complete left-most one, above at least two more."""
    pattern = pattern.lower().removesuffix(".")
    if not wanted or not pattern:
        return False
    if not pattern.startswith("*."):
        return pattern == wanted
    rest = pattern[2:]
    label, _, parent = wanted.partition(".")
    return "." in rest and bool(label) and parent == rest
