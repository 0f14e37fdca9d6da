"""Statements as a TPM makes them, written by hand: so each field can be made wrong by itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from holdfast.wire.acme.attest import TpmStatement, write_object
from holdfast.wire.device_names import permanent_identifier

SIGNING = 0x00040072  # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign
AK_USAGE = ObjectIdentifier("2.23.133.8.3")


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def public_area(key: ec.EllipticCurvePublicKey, attributes: int = SIGNING) -> bytes:
    """TPMT_PUBLIC of a P-256 signing key with a free scheme."""
    point = key.public_numbers()
    x, y = (value.to_bytes(32, "big") for value in (point.x, point.y))
    fixed = u16(0x0023) + u16(0x000B) + attributes.to_bytes(4, "big") + sized(b"")
    parameters = u16(0x0010) + u16(0x0010) + u16(0x0003) + u16(0x0010)
    return fixed + parameters + sized(x) + sized(y)


def name_of(area: bytes) -> bytes:
    return area[2:4] + hashlib.sha256(area).digest()


def statement_of(name: bytes, extra: bytes, *, magic: int = 0xFF544347, kind: int = 0x8017) -> bytes:
    """TPMS_ATTEST of TPM2_Certify."""
    head = magic.to_bytes(4, "big") + u16(kind) + sized(b"\0\x0b" + bytes(32)) + sized(extra)
    return head + bytes(17) + bytes(8) + sized(name) + sized(name)


def signature_of(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """TPMT_SIGNATURE, ECDSA with SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return u16(0x0018) + u16(0x000B) + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Authority:
    """An attestation CA of the test."""

    now: datetime
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    @property
    def certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Attestation CA")])
        return self._sign(name, name, self.key.public_key(), ca=True)

    def ak(
        self,
        key: ec.EllipticCurvePublicKey,
        *,
        identifier: str = "SN-17",
        usage: ObjectIdentifier | None = AK_USAGE,
        critical: bool = True,
        san: bool = True,
        ca: bool = False,
        end: timedelta = timedelta(days=30),
    ) -> x509.Certificate:
        issuer = self.certificate.subject
        names = x509.SubjectAlternativeName([permanent_identifier(identifier)])
        return self._sign(
            x509.Name([]),
            issuer,
            key,
            usage=usage,
            names=names if san else None,
            critical=critical,
            ca=ca,
            end=end,
        )

    def _sign(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        ca: bool,
        usage: ObjectIdentifier | None = None,
        names: x509.SubjectAlternativeName | None = None,
        critical: bool = True,
        end: timedelta = timedelta(days=365),
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(self.now - timedelta(days=1)).not_valid_after(self.now + end)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


@dataclass(frozen=True)
class SoftTpm:
    """A TPM that lies on demand. ``certify`` gives what a real one gives; ``replace`` it to break one
    field."""

    authority: Authority
    ak: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def certify(self, key_authorization: str) -> TpmStatement:
        area = public_area(self.key.public_key())
        extra = hashlib.sha256(key_authorization.encode()).digest()
        return self.stated(area, statement_of(name_of(area), extra))

    def stated(self, area: bytes, statement: bytes) -> TpmStatement:
        leaf = self.authority.ak(self.ak.public_key()).public_bytes(Encoding.DER)
        return TpmStatement(-7, (leaf,), signature_of(self.ak, statement), statement, area)

    def with_leaf(self, statement: TpmStatement, leaf: x509.Certificate) -> TpmStatement:
        return replace(statement, chain=(leaf.public_bytes(Encoding.DER),))

    def attest(self, key_authorization: bytes) -> bytes:
        return write_object(self.certify(key_authorization.decode()))
