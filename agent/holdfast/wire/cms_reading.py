"""Hostile CMS bytes to plain fields. No trust decision is taken here.

asn1crypto parses lazily and reports bad input by many built-in exception types; all of it happens inside
:func:`signed_data`, so that nothing lazy and no foreign exception leaves this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from asn1crypto import algos, core
from asn1crypto import cms as asn1_cms
from cryptography import x509

from holdfast.wire.ber import check_bounds
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import RemoteProtocolError, TrustError

MAX_CERTIFICATES: Final = 20
MAX_SIGNERS: Final = 4
MAX_ATTRIBUTES: Final = 32
PARSER_ERRORS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
MAX_CRLS: Final = 4
MAX_VALUES: Final = 4
_DIGESTS: Final = {
    "1.3.14.3.2.26": "sha1",  # read, so that a caller may say what it thinks of it
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_VERSIONS: Final = ("v1", "v3", "v4", "v5")
_NAMED: Final = ("content_type", "message_digest", "signing_time")
_PSS: Final = "1.2.840.113549.1.1.10"


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature algorithm: ``key`` is ``rsa`` or ``ecdsa``; ``digest`` None leaves it to the SignerInfo."""

    key: str
    digest: str | None
    pss_salt: int | None = None


_SCHEMES: Final = {
    "1.2.840.113549.1.1.1": Scheme("rsa", None),
    "1.2.840.113549.1.1.5": Scheme("rsa", "sha1"),
    "1.2.840.113549.1.1.11": Scheme("rsa", "sha256"),
    "1.2.840.113549.1.1.12": Scheme("rsa", "sha384"),
    "1.2.840.113549.1.1.13": Scheme("rsa", "sha512"),
    "1.2.840.10045.4.3.2": Scheme("ecdsa", "sha256"),
    "1.2.840.10045.4.3.3": Scheme("ecdsa", "sha384"),
    "1.2.840.10045.4.3.4": Scheme("ecdsa", "sha512"),
}


@dataclass(frozen=True, slots=True)
class CertificateIdentifier:
    """Whose certificate is meant: either ``issuer`` (DER Name) and ``serial`` or ``key_identifier`` tells
    (RFC 5652 §5.3 and §6.2.1)."""

    issuer: bytes | None
    serial: int | None
    key_identifier: bytes | None

    def names(self, certificate: x509.Certificate) -> bool:
        """Whether *certificate* is the one that is meant."""
        if self.key_identifier is None:
            return certificate.serial_number == self.serial and issuer_of(certificate) == self.issuer
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
            return False
        return extension.value.digest == self.key_identifier


@dataclass(frozen=True, slots=True)
class SignerFields(CertificateIdentifier):
    """One SignerInfo.

    ``digest`` is our name of the algorithm or the dotted OID of one that we do not accept. ``attributes``
    are the encoded signed attributes as sent, None if there are none; ``values`` are those that are not named
    here: dotted type and encoded values.
    """

    digest: str
    scheme: Scheme
    signature: bytes
    attributes: tuple[bytes, ...] | None
    signed_type: str | None = None
    signed_digest: bytes | None = None
    signing_time: datetime | None = None
    values: tuple[tuple[str, tuple[bytes, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class SignedDataFields:
    """A SignedData taken apart. ``content`` is None when absent; ``certificates`` are DER, as sent."""

    content_type: str
    content: bytes | None
    certificates: tuple[bytes, ...]
    signers: tuple[SignerFields, ...]
    crls: tuple[bytes, ...] = ()


def signed_data(der: bytes, *, limit: int) -> SignedDataFields:
    """Take a ContentInfo with SignedData apart. Raises :class:`RemoteProtocolError` and, for algorithms
    that are not accepted, :class:`TrustError` ``cms.algorithm``."""
    if len(der) > limit:
        raise RemoteProtocolError("cms.too-large", f"{len(der)} octets, at most {limit} are read")
    try:
        check_bounds(der)
        return _signed_data(asn1_cms.ContentInfo.load(der, strict=True))
    except PARSER_ERRORS as error:
        detail = f"not one CMS SignedData: {str(error)[:300]}"
        raise RemoteProtocolError("cms.syntax", detail, clause="RFC 5652 §5.1") from error


def der_set(members: Iterable[bytes]) -> bytes:
    """The DER SET OF with these encoded members: what a signature over attributes covers (RFC 5652 §5.4)."""
    content = b"".join(sorted(members))
    size = len(content)
    if size < 0x80:
        return b"\x31" + bytes([size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"\x31" + bytes([0x80 | len(octets)]) + octets + content


def is_set(content: bytes) -> bool:
    """Whether *content* is one encoded SET. A signature over attributes would fit such content too."""
    try:
        check_bounds(content)
    except ValueError:
        return False
    return content[0] == 0x31


def issuer_of(certificate: x509.Certificate) -> bytes:
    """The DER Name of its issuer."""
    return certificate.issuer.public_bytes()


def identifier_fields(choice: Any) -> tuple[bytes | None, int | None, bytes | None]:
    """The fields of :class:`CertificateIdentifier` from a SignerIdentifier or a RecipientIdentifier. It is
    still parsed lazily: call this where ``PARSER_ERRORS`` are caught."""
    if choice.name == "issuer_and_serial_number":
        return bytes(choice.chosen["issuer"].dump()), int(choice.chosen["serial_number"]), None
    return None, None, bytes(choice.chosen)


def _signed_data(info: Any) -> SignedDataFields:
    if info["content_type"].native != "signed_data":
        raise ValueError("the content type is not id-signedData")
    data = info["content"]
    if data["version"].native not in _VERSIONS:
        raise ValueError("an unknown version of SignedData")
    for algorithm in _bounded(data["digest_algorithms"], MAX_SIGNERS, "digest algorithms"):
        _ = algorithm["algorithm"].dotted  # advisory (RFC 5652 §5.1), but to be well-formed
    encapsulated = data["encap_content_info"]
    return SignedDataFields(
        encapsulated["content_type"].dotted,
        _octets(encapsulated["content"]),
        tuple(map(_certificate_bytes, _bounded(data["certificates"], MAX_CERTIFICATES, "certificates"))),
        tuple(map(_signer, _bounded(data["signer_infos"], MAX_SIGNERS, "signers"))),
        tuple(bytes(each.chosen.dump()) for each in _bounded(data["crls"], MAX_CRLS, "CRLs")),
    )


def _octets(value: Any) -> bytes | None:
    if isinstance(value, core.Void):
        return None
    if isinstance(value, core.Any):  # SignedData version 1, where PKCS#7 allows any type
        value = value.parse(spec=core.OctetString)
    return bytes(value)


def _bounded(values: Any, limit: int, what: str) -> list[Any]:
    if isinstance(values, core.Void):
        return []
    if len(values) > limit:
        raise ValueError(f"{len(values)} {what}, at most {limit} are read")
    return list(values)


def _certificate_bytes(choice: Any) -> bytes:
    if choice.name != "certificate":
        raise ValueError(f"a certificate of kind {choice.name}")
    return bytes(choice.chosen.dump())


def _signer(info: Any) -> SignerFields:
    digest = info["digest_algorithm"]["algorithm"].dotted
    signed = info["signed_attrs"]
    attributes = _bounded(signed, MAX_ATTRIBUTES, "attributes")
    signed_type, signed_digest = _single(attributes, "content_type"), _single(attributes, "message_digest")
    signing_time = _single(attributes, "signing_time")
    return SignerFields(
        *identifier_fields(info["sid"]),
        _DIGESTS.get(digest, digest),
        _scheme(info["signature_algorithm"]),
        bytes(info["signature"]),
        None if isinstance(signed, core.Void) else tuple(bytes(each.dump()) for each in attributes),
        None if signed_type is None else str(signed_type.dotted),
        None if signed_digest is None else bytes(signed_digest),
        None if signing_time is None else _moment(signing_time),
        tuple(
            (
                each["type"].dotted,
                tuple(bytes(value.dump()) for value in _bounded(each["values"], 4, "values")),
            )
            for each in attributes
            if each["type"].native not in _NAMED
        ),
    )


def _single(attributes: list[Any], name: str) -> Any:
    found = [attribute for attribute in attributes if attribute["type"].native == name]
    if not found:
        return None
    if len(found) > 1 or len(found[0]["values"]) != 1:
        raise ValueError(f"more or less than one value of {name}")
    return found[0]["values"][0]


def _moment(time: Any) -> datetime:
    moment = time.native
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("a signing time without zone, or before year 1")
    return moment


def _scheme(algorithm: Any) -> Scheme:
    dotted = algorithm["algorithm"].dotted
    if dotted == _PSS:
        return _pss(algorithm["parameters"])
    if dotted not in _SCHEMES:
        raise TrustError("cms.algorithm", f"signature algorithm {dotted} is not accepted")
    return _SCHEMES[dotted]


def _pss(parameters: Any) -> Scheme:
    if not isinstance(parameters, algos.RSASSAPSSParams):
        raise TrustError("cms.algorithm", "RSASSA-PSS without parameters means SHA-1")
    digest = _DIGESTS.get(parameters["hash_algorithm"]["algorithm"].dotted)
    mask = parameters["mask_gen_algorithm"]
    mask_digest = _DIGESTS.get(mask["parameters"]["algorithm"].dotted)
    salt = int(parameters["salt_length"])
    if digest is None or mask_digest != digest or not 0 <= salt <= 1024:
        raise TrustError(
            "cms.algorithm", "RSASSA-PSS whose digests are weak or differ", clause="RFC 4055 §3.1"
        )
    return Scheme("rsa", digest, salt)
