"""The certificate of a TPM's endorsement key: who made the chip (TCG EK Credential Profile for TPM 2.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import certificates, chain, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, Moment
from holdfast.wire.tpm.public import DECRYPT, HARDWARE_BOUND, RESTRICTED, TpmPublic

MANUFACTURER, MODEL, VERSION = "2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"
_PROFILE: Final = "TCG EK Credential Profile"


@dataclass(frozen=True, slots=True)
class ChipMaker:
    """What an EK certificate says of its TPM. ``manufacturer``: the TCG's vendor ID, ``id:53544D20`` for
    STMicroelectronics; ``version``: of the firmware, at the time of making."""

    manufacturer: str
    model: str
    version: str


def judge(ek: TpmPublic, given: Chain, roots: Chain, at: Moment) -> ChipMaker:
    """Believe that *ek* lives in a TPM of one of the makers whose *roots* these are.

    *given*: the EK's certificate, then whatever intermediates were in NV. Raises TrustError ``chain.*``,
    ``ek.no-certificate``, ``ek.usage``, ``ek.names``, ``ek.key-mismatch``, ``ek.attributes``.
    """
    if not given:
        raise TrustError("ek.no-certificate", "the TPM has no endorsement key certificate")
    leaf = given[0]
    chain.validate(given, roots, at, chain.Rule.endorsement_key())
    maker = read(leaf)
    if spki(leaf) != spki(ek.key):
        raise TrustError("ek.key-mismatch", "the certificate is not for this endorsement key")
    if lacking := ek.lacking(HARDWARE_BOUND | RESTRICTED | DECRYPT):
        raise TrustError("ek.attributes", f"the endorsement key lacks {', '.join(lacking)}")
    return maker


def read(leaf: x509.Certificate) -> ChipMaker:
    """The names in *leaf*, if its extensions are those of an endorsement key.

    Raises TrustError ``ek.usage``, ``ek.names``, ``chain.syntax``.
    """
    try:
        _check_usages(leaf)
        return _names(leaf)
    except certificates.LIBRARY_ERRORS as error:
        raise TrustError("chain.syntax", f"unreadable extension: {error}"[:300]) from error


def _check_usages(leaf: x509.Certificate) -> None:
    try:
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise TrustError("ek.usage", "no extended key usage", clause=f"{_PROFILE} §3.2.16") from None
    if oids.TCG_EK_CERTIFICATE not in {usage.dotted_string for usage in extended}:
        raise TrustError("ek.usage", "lacks tcg-kp-EKCertificate", clause=f"{_PROFILE} §3.2.16")
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    wanted = (
        usage.key_encipherment if isinstance(leaf.public_key(), rsa.RSAPublicKey) else usage.key_agreement
    )
    # Makers of elliptic curve EKs were of two minds before the profile said keyAgreement.
    if not (wanted or usage.key_encipherment):
        raise TrustError("ek.usage", "this key may not decrypt", clause=f"{_PROFILE} §3.2.13")


def _names(leaf: x509.Certificate) -> ChipMaker:
    clause = f"{_PROFILE} §3.2.9"
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise TrustError("ek.names", "no subjectAltName", clause=clause) from None
    found: dict[str, str] = {}
    for name in san.get_values_for_type(x509.DirectoryName):
        for attribute in name:
            value = attribute.value
            found[attribute.oid.dotted_string] = value if isinstance(value, str) else value.decode("latin-1")
    lacking = [oid for oid in (MANUFACTURER, MODEL, VERSION) if not found.get(oid)]
    if lacking:
        raise TrustError("ek.names", f"subjectAltName lacks {', '.join(lacking)}", clause=clause)
    return ChipMaker(found[MANUFACTURER], found[MODEL], found[VERSION])
