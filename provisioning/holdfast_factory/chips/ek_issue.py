"""An endorsement key's certificate issued on the line, for a chip whose maker left none.

By policy only: it says no more than that this factory held the chip in its hands. The activation that follows
has to show that the key is in a TPM.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ObjectIdentifier

from holdfast.wire import oids
from holdfast.wire.errors import ConfigError
from holdfast.wire.tpm.ek_profile import MANUFACTURER, MODEL, VERSION, ChipMaker
from holdfast.wire.tpm.public import TpmPublic
from holdfast_factory.authority import NEVER_EXPIRES, Authority
from holdfast_factory.chips import commands, nv
from holdfast_factory.chips.commands import Answer
from holdfast_factory.chips.dialogue import Dialogue
from holdfast_factory.chips.endorsement import Ek, Look

Endorser = Callable[[TpmPublic, ChipMaker], bytes]
"""Issues the certificate (DER) of an endorsement key, for what the chip says of itself."""

_FIXED: Final = 0x100
_MANUFACTURER, _VENDOR, _FIRMWARE = 0x105, range(0x106, 0x10A), 0x10B
_UNNAMED: Final = "unnamed"


def read_authority(path: Path) -> Authority:
    """The CA for endorsement keys: certificate and P-256 key in one PEM file. Raises ConfigError."""
    try:
        content = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(content)
        key = load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("factory.issue-ek", f"{path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError("factory.issue-ek", f"{path}: the key is not the certificate's")
    return Authority(certificate, key)


def issue(authority: Authority, ek: TpmPublic, chip: ChipMaker, now: datetime) -> bytes:
    """The certificate by the profile that makers follow (TCG EK Credential Profile §3.2), DER."""
    named = zip((MANUFACTURER, MODEL, VERSION), (chip.manufacturer, chip.model, chip.version), strict=True)
    names = x509.Name([x509.NameAttribute(ObjectIdentifier(oid), value) for oid, value in named])
    is_rsa = isinstance(ek.key, rsa.RSAPublicKey)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=is_rsa,
        data_encipherment=False,
        key_agreement=not is_rsa,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    issuer = authority.certificate
    return (
        x509.CertificateBuilder(issuer.subject, x509.Name([]), ek.key, x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(NEVER_EXPIRES)
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(names)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(oids.TCG_EK_CERTIFICATE)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def endorse(seen: Look, ek: Ek, public: TpmPublic, endorser: Endorser) -> Dialogue[bytes]:
    """Have *ek* certified and write the certificate to where a maker would have left it; returns it."""
    (told,) = yield (commands.properties(_FIXED, 64),)
    certificate = endorser(public, _maker(told))
    yield from nv.put({ek.kind.certificate: certificate}, seen.indices, seen.buffer)
    return certificate


def _maker(told: Answer) -> ChipMaker:
    """What the chip says of itself: vendor ID, the vendor's words, the firmware's version."""
    values = commands.valued(told)
    words = b"".join(values.get(each, 0).to_bytes(4, "big") for each in _VENDOR)
    text = "".join(chr(c) for c in words if 0x20 < c < 0x7F)
    return ChipMaker(
        f"id:{values.get(_MANUFACTURER, 0):08X}", text or _UNNAMED, f"id:{values.get(_FIRMWARE, 0):08X}"
    )
