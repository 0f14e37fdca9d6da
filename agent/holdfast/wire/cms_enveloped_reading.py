"""Hostile EnvelopedData to plain fields (RFC 5652 §6). Nothing is decrypted here.

As in :mod:`holdfast.wire.cms_reading`, all lazy parsing of asn1crypto happens inside one function.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from asn1crypto import algos, core
from asn1crypto import cms as asn1_cms

from holdfast.wire import oids
from holdfast.wire.ber import check_bounds
from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.cms_reading import PARSER_ERRORS, CertificateIdentifier, identifier_fields
from holdfast.wire.errors import RemoteProtocolError
from holdfast.wire.password_wrap import MOST_ITERATIONS, PRFS

MAX_RECIPIENTS: Final = 8
_OAEP: Final = "1.2.840.113549.1.1.7"
_PKCS1: Final = "1.2.840.113549.1.1.1"
_NAMES: Final = {
    "des": "single DES",
    "rc2": "RC2",
    "rc4": "RC4",
    "tripledes_3key": "triple DES",
    "aes128_gcm": "AES-GCM without authentication",
    "aes256_gcm": "AES-GCM without authentication",
}


@dataclass(frozen=True, slots=True)
class KeyTransport(CertificateIdentifier):
    """One KeyTransRecipientInfo. ``oaep`` names the hash of OAEP, None means PKCS#1 v1.5."""

    oaep: str | None
    encrypted_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasswordWrap:
    """One PasswordRecipientInfo: PBKDF2 and PWRI-KEK, within our bounds."""

    salt: bytes = field(repr=False)
    iterations: int
    prf: str
    cipher: ContentCipher
    vector: bytes = field(repr=False)
    encrypted_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnvelopedFields:
    """An EnvelopedData taken apart; ``other`` counts recipients of kinds that are not read."""

    transports: tuple[KeyTransport, ...]
    passwords: tuple[PasswordWrap, ...]
    other: int
    cipher: ContentCipher
    vector: bytes = field(repr=False)
    encrypted: bytes = field(repr=False)


def enveloped_data(der: bytes, *, limit: int) -> EnvelopedFields:
    """Take a ContentInfo with EnvelopedData apart.

    Raises :class:`RemoteProtocolError`: ``cms.too-large``, ``cms.syntax``, ``cms.weak-cipher`` (single DES,
    RC2 and everything else that no switch allows), ``cms.iterations``, ``cms.key-encryption``.
    """
    if len(der) > limit:
        raise RemoteProtocolError("cms.too-large", f"{len(der)} octets, at most {limit} are read")
    try:
        check_bounds(der)
        return _enveloped(asn1_cms.ContentInfo.load(der, strict=True))
    except PARSER_ERRORS as error:
        detail = f"not one CMS EnvelopedData: {str(error)[:300]}"
        raise RemoteProtocolError("cms.syntax", detail, clause="RFC 5652 §6.1") from error


def _enveloped(info: Any) -> EnvelopedFields:
    if info["content_type"].native != "enveloped_data":
        raise ValueError("the content type is not id-envelopedData")
    data = info["content"]
    if data["version"].native not in ("v0", "v2", "v3"):
        raise ValueError("an unknown version of EnvelopedData")
    recipients = list(data["recipient_infos"])
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise ValueError(f"{len(recipients)} recipients, 1 to {MAX_RECIPIENTS} are read")
    transports = tuple(_transport(each.chosen) for each in recipients if each.name == "ktri")
    passwords = tuple(_password(each.chosen) for each in recipients if each.name == "pwri")
    content = data["encrypted_content_info"]
    _ = content["content_type"].dotted
    cipher, vector = _cipher(content["content_encryption_algorithm"])
    encrypted = content["encrypted_content"]
    if isinstance(encrypted, core.Void):
        raise ValueError("the encrypted content is missing")
    octets = bytes(encrypted)
    if not octets or len(octets) % cipher.block:
        raise ValueError(f"{len(octets)} octets are no whole blocks")
    other = len(recipients) - len(transports) - len(passwords)
    return EnvelopedFields(transports, passwords, other, cipher, vector, octets)


def _transport(info: Any) -> KeyTransport:
    identifier = identifier_fields(info["rid"])
    encrypted = bytes(info["encrypted_key"])
    if not 1 <= len(encrypted) <= 1024:
        raise ValueError(f"an encrypted key of {len(encrypted)} octets")
    return KeyTransport(*identifier, _padding(info["key_encryption_algorithm"]), encrypted)


def _padding(algorithm: Any) -> str | None:
    dotted = algorithm["algorithm"].dotted
    if dotted == _PKCS1:
        return None
    if dotted != _OAEP:
        raise RemoteProtocolError("cms.key-encryption", f"the key is encrypted with {dotted}, not RSA")
    parameters = algorithm["parameters"]
    if not isinstance(parameters, algos.RSAESOAEPParams):
        return "sha1"  # absent parameters are the defaults (RFC 8017 §A.2.1)
    digest = str(parameters["hash_algorithm"]["algorithm"].native)
    mask = str(parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native)
    label = bytes(parameters["p_source_algorithm"]["parameters"].native)
    if digest not in PRFS or mask != digest or label:
        detail = f"OAEP with {digest}, mask generation with {mask}, {len(label)} octets of label"
        raise RemoteProtocolError("cms.key-encryption", detail, clause="RFC 3560 §3")
    return digest


def _password(info: Any) -> PasswordWrap:
    derivation = info["key_derivation_algorithm"]
    if isinstance(derivation, core.Void) or derivation["algorithm"].native != "pbkdf2":
        raise RemoteProtocolError("cms.key-encryption", "the password is not derived by PBKDF2")
    parameters = derivation["parameters"]
    salt, iterations = parameters["salt"], int(parameters["iteration_count"])
    if salt.name != "specified" or not 1 <= len(bytes(salt.chosen)) <= 128:
        raise ValueError("a salt that is not 1 to 128 octets")
    if not 1 <= iterations <= MOST_ITERATIONS:
        detail = f"{iterations} rounds of PBKDF2, at most {MOST_ITERATIONS} are done"
        raise RemoteProtocolError("cms.iterations", detail, clause="RFC 8018 §5.2")
    prf = str(parameters["prf"]["algorithm"].native)
    if prf not in PRFS:
        raise RemoteProtocolError("cms.key-encryption", f"PBKDF2 with {prf}")
    wrapping = info["key_encryption_algorithm"]
    if wrapping["algorithm"].dotted != oids.PWRI_KEK:
        raise RemoteProtocolError("cms.key-encryption", "the password does not wrap by PWRI-KEK")
    inner = algos.EncryptionAlgorithm.load(wrapping["parameters"].dump(), strict=True)
    cipher, vector = _cipher(inner)
    encrypted = bytes(info["encrypted_key"])
    if len(encrypted) % cipher.block or not 2 * cipher.block <= len(encrypted) <= 256:
        raise ValueError(f"a wrapped key of {len(encrypted)} octets")
    length = parameters["key_length"].native
    if length is not None and length != cipher.key_size:
        raise ValueError(f"a derived key of {length} octets for {cipher.value}")
    return PasswordWrap(bytes(salt.chosen), iterations, prf, cipher, vector, encrypted)


def _cipher(algorithm: Any) -> tuple[ContentCipher, bytes]:
    name = str(algorithm["algorithm"].native)
    try:
        cipher = ContentCipher(name)
    except ValueError:
        detail = f"the content is encrypted with {_NAMES.get(name, name)}, which is never accepted"
        raise RemoteProtocolError("cms.weak-cipher", detail, clause="RFC 8894 §2.9") from None
    vector = algorithm["parameters"].native
    if not isinstance(vector, bytes) or len(vector) != cipher.block:
        raise ValueError("an initialisation vector of the wrong size")
    return cipher, vector
