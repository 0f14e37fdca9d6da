"""Chips of a maker for tests of the line, and a forger who has none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.tpm.octets import sized
from holdfast.wire.tpm.tcg_csr import IdevidContents, build_contents, build_request
from holdfast.wire.tpm.templates import Level, Template, iak, idevid
from holdfast_factory.chips.keys import qualifying
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.ek import manufacture_ek
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_unit import TpmUnit
from holdfast_factory.unit import Shown
from wire.tpm_statements import name_of, signature_of, statement_of

MODEL, SERIAL = "Gateway", "HF-0001"
EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")


@dataclass(frozen=True)
class Maker:
    """A maker of TPMs in *home*, and its CA, whose key the tests may misuse."""

    home: Path

    def chip(self, name: str) -> Swtpm:
        """A new chip with EKs and their certificates, not running."""
        (self.home / name).mkdir()
        manufacture_ek(self.home / name, self.home / "ca")
        return Swtpm(self.home / name)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """The issuer of the EK certificates: an intermediate, pinned."""
        return tuple(x509.load_pem_x509_certificates((self.home / "ca" / "issuercert.pem").read_bytes()))

    def certify(self, like: x509.Certificate, **changes: object) -> bytes:
        """An EK certificate as *like*, but for *changes*: ``key``, or an extension to leave out or put in."""
        key = serialization.load_pem_private_key((self.home / "ca" / "signkey.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
        public = changes.get("key", like.public_key())
        builder = x509.CertificateBuilder(like.issuer, like.subject, public, x509.random_serial_number())  # type: ignore[arg-type]
        builder = builder.not_valid_before(like.not_valid_before_utc)
        builder = builder.not_valid_after(like.not_valid_after_utc)
        for extension in like.extensions:
            value = changes.get(extension.oid.dotted_string, extension.value)
            if isinstance(value, x509.ExtensionType):
                builder = builder.add_extension(value, extension.critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def unit(chip: Swtpm, level: Level = Level.H2) -> TpmUnit:
    return TpmUnit(TctiLink(chip.tcti), f"tcti:{chip.tcti}", level=level)


def area_of(template: Template, key: ec.EllipticCurvePublicKey, attributes: int | None = None) -> bytes:
    """What a TPM would show for *key*, had it made that from the template. *attributes* lie more."""
    point = key.public_numbers()
    fixed = bytearray(template.fixed)
    if attributes is not None:
        fixed[4:8] = attributes.to_bytes(4, "big")
    return bytes(fixed) + sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))


def primary_name(area: bytes) -> bytes:
    """The qualified name of a primary key of the endorsement hierarchy, its Name by SHA-256."""
    name = name_of(area)
    return name[:2] + hashlib.sha256(bytes.fromhex("4000000b") + name).digest()


@dataclass
class Forger:
    """Software keys that claim to be a TPM's: everything is consistent, nothing is true. Each field can be
    made wrong by itself."""

    signing: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    attesting: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    idevid_attributes: int | None = None
    iak_attributes: int | None = None
    magic: int = 0xFF544347
    name: bytes | None = None
    extra: bytes | None = None
    signer: bytes | None = None
    states_with: ec.EllipticCurvePrivateKey | None = None
    signs_with: ec.EllipticCurvePrivateKey | None = None

    def shown(self, ek_certificate: bytes, model: str = MODEL, serial: str = SERIAL) -> Shown:
        area = area_of(idevid(Level.H2), self.signing.public_key(), self.idevid_attributes)
        attesting = area_of(iak(Level.H2), self.attesting.public_key(), self.iak_attributes)
        extra = qualifying(model, serial) if self.extra is None else self.extra
        signer = primary_name(attesting) if self.signer is None else self.signer
        name = name_of(area) if self.name is None else self.name
        stated = statement_of(name, extra, magic=self.magic)
        stated = stated[:6] + sized(signer) + stated[6 + 36 :]
        contents = IdevidContents(
            model.encode(),
            serial.encode(),
            ek_certificate,
            attesting,
            area,
            stated,
            signature_of(self.states_with or self.attesting, stated),
        )
        signed = build_contents(contents)
        request = build_request(signed, signature_of(self.signs_with or self.signing, signed))
        return Shown(request, area, attesting)
