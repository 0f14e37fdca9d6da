"""The values of the controls that are neither a status nor a proof (RFC 10002 §6.4 to §6.17, §7.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from holdfast.wire import der
from holdfast.wire.cmc.messages import Control, Request, number_of, read_request, reading
from holdfast.wire.der import Cursor
from holdfast.wire.identified import Algorithm, directory_name, read_algorithm
from holdfast.wire.revocation.reason import Reason

MOST_HASHES: Final = 64
MOST_OCTETS: Final = 65_536
_ENUMERATED: Final = 0x0A


def read_octets(control: Control, *, most: int = MOST_OCTETS) -> bytes:
    """A control that is an OCTET STRING of at most *most* octets and not empty."""
    with reading(f"control {control.oid}"):
        cursor = Cursor(control.value)
        value = cursor.octets()
        cursor.close()
        if not 1 <= len(value) <= most:
            raise ValueError(f"{len(value)} octets where 1 to {most} are read")
    return value


def read_integer(control: Control) -> int:
    """A control that is an INTEGER."""
    with reading(f"control {control.oid}"):
        cursor = Cursor(control.value)
        value = cursor.integer()
        cursor.close()
    return value


def read_text(control: Control, *, most: int = 1024) -> str:
    """A control that is a UTF8String."""
    with reading(f"control {control.oid}"):
        cursor = Cursor(control.value)
        value = cursor.text()
        cursor.close()
        if not 1 <= len(value) <= most:
            raise ValueError(f"{len(value)} characters where 1 to {most} are read")
    return value


@dataclass(frozen=True, slots=True)
class CertificateId:
    """Whose certificate: ``issuer`` a DER Name, and the serial number."""

    issuer: bytes
    serial: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertificateId:
        return cls(certificate.issuer.public_bytes(), certificate.serial_number)

    def accepted(self) -> bytes:
        """A confirmCertAcceptance value."""
        return der.sequence(self.issuer, der.integer(self.serial))

    def wanted(self) -> bytes:
        """A getCert value: the issuer is a GeneralName there."""
        return der.sequence(directory_name(self.issuer), der.integer(self.serial))


def read_accepted(value: bytes) -> CertificateId:
    """A confirmCertAcceptance value."""
    with reading("CMCCertId"):
        cursor = der.read_one(value)
        found = CertificateId(_name(cursor), cursor.integer())
        cursor.close()
    return found


def read_get_cert(value: bytes) -> CertificateId:
    """A getCert value; only directory names are understood."""
    with reading("GetCert"):
        cursor = der.read_one(value)
        general = cursor.inside(0xA4)
        found = CertificateId(_name(general), cursor.integer())
        general.close()
        cursor.close()
    return found


def get_crl(issuer: x509.Name) -> bytes:
    """A getCRL value: the newest list of *issuer*."""
    return der.sequence(issuer.public_bytes())


def read_get_crl(value: bytes) -> bytes:
    """The issuer (DER Name) of a getCRL value; which list of several is meant is not read."""
    with reading("GetCRL"):
        cursor = der.read_one(value)
        issuer = _name(cursor)
        cursor.rest()
    return issuer


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """``secret`` was agreed on for the case that the key is lost; without one the request is signed."""

    certificate: CertificateId
    reason: Reason
    invalid_since: datetime | None = None
    secret: bytes = field(default=b"", repr=False)
    comment: str = ""

    def encode(self) -> bytes:
        parts = [self.certificate.issuer, der.integer(self.certificate.serial)]
        parts.append(der.tlv(_ENUMERATED, bytes((self.reason,))))
        if self.invalid_since is not None:
            parts.append(der.generalized_time(self.invalid_since))
        if self.secret:
            parts.append(der.octets(self.secret))
        if self.comment:
            parts.append(der.text(self.comment))
        return der.sequence(*parts)


def read_revoke_request(value: bytes) -> RevokeRequest:
    """A revokeRequest value."""
    with reading("RevokeRequest"):
        cursor = der.read_one(value)
        certificate = CertificateId(_name(cursor), cursor.integer())
        reason = Reason(int.from_bytes(cursor.take(_ENUMERATED), "big"))
        since = cursor.generalized_time() if cursor.peek() == der.GENERALIZED_TIME else None
        secret = cursor.octets() if cursor.peek() == der.OCTET_STRING else b""
        comment = cursor.text() if cursor.more else ""
        cursor.close()
    return RevokeRequest(certificate, reason, since, secret, comment)


@dataclass(frozen=True, slots=True)
class AddExtensions:
    """What an RA adds to the requests ``requests`` of the message in ``message`` (0: this one).
    ``extensions`` are encoded Extensions."""

    message: int
    requests: tuple[int, ...]
    extensions: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        numbers = der.sequence(*map(der.integer, self.requests))
        return der.sequence(der.integer(self.message), numbers, der.sequence(*self.extensions))


def read_add_extensions(value: bytes) -> AddExtensions:
    """An addExtensions value."""
    with reading("AddExtensions"):
        cursor = der.read_one(value)
        message = number_of(cursor)
        numbers = tuple(number_of(each) for each in cursor.inside().each())
        extensions = tuple(_sequence(each) for each in cursor.inside().each())
        cursor.close()
    return AddExtensions(message, numbers, extensions)


@dataclass(frozen=True, slots=True)
class PublishedAnchors:
    """PublishTrustAnchors: the ``sequence``-th set, by the hashes of the certificates."""

    sequence: int
    algorithm: Algorithm
    hashes: tuple[bytes, ...]

    def encode(self) -> bytes:
        hashes = der.sequence(*map(der.octets, self.hashes))
        return der.sequence(der.integer(self.sequence), self.algorithm.encode(), hashes)


def read_published(value: bytes) -> PublishedAnchors:
    """A trustedAnchors value."""
    with reading("PublishTrustAnchors"):
        cursor = der.read_one(value)
        sequence, algorithm = cursor.integer(), read_algorithm(cursor)
        hashes = tuple(each.octets() for each in cursor.inside().each())
        cursor.close()
        if not 1 <= len(hashes) <= MOST_HASHES:
            raise ValueError(f"{len(hashes)} anchors where 1 to {MOST_HASHES} are read")
    return PublishedAnchors(sequence, algorithm, hashes)


def numbers(parts: tuple[int, ...]) -> bytes:
    """A BodyPartList: the value of batchRequests and batchResponses."""
    return der.sequence(*map(der.integer, parts))


def read_numbers(value: bytes) -> tuple[int, ...]:
    """A BodyPartList."""
    with reading("BodyPartList"):
        return tuple(number_of(each) for each in der.read_one(value).each())


@dataclass(frozen=True, slots=True)
class EncryptedPop:
    """A challenge for a key that decrypts: ``cms`` hides a value whose hash is ``witness``."""

    request: Request
    cms: bytes = field(repr=False)
    mac: Algorithm
    digest: Algorithm
    witness: bytes

    def encode(self) -> bytes:
        parts = (self.request.encode(), self.cms, self.mac.encode(), self.digest.encode())
        return der.sequence(*parts, der.octets(self.witness))


def read_encrypted_pop(value: bytes) -> EncryptedPop:
    """An encryptedPOP value."""
    with reading("EncryptedPOP"):
        cursor = der.read_one(value)
        request, cms = read_request(cursor), _sequence(cursor)
        mac, digest = read_algorithm(cursor), read_algorithm(cursor)
        witness = cursor.octets()
        cursor.close()
    return EncryptedPop(request, cms, mac, digest, witness)


@dataclass(frozen=True, slots=True)
class DecryptedPop:
    """The proof that the challenge about request ``number`` was decrypted."""

    number: int
    mac: Algorithm
    proof: bytes

    def encode(self) -> bytes:
        return der.sequence(der.integer(self.number), self.mac.encode(), der.octets(self.proof))


def read_decrypted_pop(value: bytes) -> DecryptedPop:
    """A decryptedPOP value."""
    with reading("DecryptedPOP"):
        cursor = der.read_one(value)
        found = DecryptedPop(number_of(cursor), read_algorithm(cursor), cursor.octets())
        cursor.close()
    return found


@dataclass(frozen=True, slots=True)
class ChangeSubjectName:
    """The names that a new certificate shall have in the place of the present ones: a DER Name, and
    GeneralNames (encoded); empty if absent."""

    subject: bytes = b""
    alternative: bytes = b""

    def encode(self) -> bytes:
        parts = [self.subject] if self.subject else []
        if self.alternative:
            parts.append(der.explicit(1, Cursor(self.alternative).take(der.SEQUENCE)))
        return der.sequence(*parts)


def read_change_subject_name(value: bytes) -> ChangeSubjectName:
    """A changeSubjectName value: one of both parts must be there."""
    with reading("ChangeSubjectName"):
        cursor = der.read_one(value)
        subject = cursor.any() if cursor.peek() == der.SEQUENCE else b""
        alternative = der.sequence(cursor.take(0xA1)) if cursor.peek() == 0xA1 else b""
        cursor.close()
        if not subject and not alternative:
            raise ValueError("neither a subject nor alternative names")
    return ChangeSubjectName(subject, alternative)


def _name(cursor: Cursor) -> bytes:
    return _sequence(cursor)


def _sequence(cursor: Cursor) -> bytes:
    if cursor.peek() != der.SEQUENCE:
        raise ValueError("a value that is no SEQUENCE")
    return cursor.any()
