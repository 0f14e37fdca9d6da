"""CMS EnvelopedData (RFC 5652 §6): content for one recipient, by RSA key or by password.

Whatever fails once a private key or a password was used fails in one way: the padding of the key, its
size, the padding of the content all end in ``cms.decrypt`` after the same steps, with a random key in the
place of one that did not come out (RFC 3218 §2.3). The private key is ``cryptography``'s interface, so it
may live in a TPM or a token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from asn1crypto import algos, core
from asn1crypto import cms as asn1_cms
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import oids
from holdfast.wire.ciphers import ContentCipher, decrypt, encrypt
from holdfast.wire.cms import CMS_LIMIT
from holdfast.wire.cms_enveloped_reading import EnvelopedFields, KeyTransport, PasswordWrap, enveloped_data
from holdfast.wire.errors import KeyStoreError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import RandomBytes
from holdfast.wire.password_wrap import ITERATIONS, derive, unwrap, wrap

_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha1": hashes.SHA1,  # OAEP asks nothing of its hash that SHA-1 lacks
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_NO_NAME: Final = b"\x30\x00"
_AES_ONLY: Final = frozenset({ContentCipher.AES128, ContentCipher.AES256})


@dataclass(frozen=True, slots=True)
class ForCertificate:
    """The recipient is whoever holds the key of ``certificate``, which must be RSA."""

    certificate: x509.Certificate
    oaep: bool = False


@dataclass(frozen=True, slots=True)
class ForKey:
    """The recipient is a key without a certificate, named by its subject key identifier."""

    key: rsa.RSAPublicKey
    identifier: bytes


@dataclass(frozen=True, slots=True)
class ForPassword:
    """The recipient is whoever knows ``password`` (RFC 5652 §6.2.4)."""

    password: bytes = field(repr=False)
    iterations: int = ITERATIONS


@dataclass(frozen=True, slots=True)
class WithKey:
    """Open with a private key. ``certificate`` is how the envelope names it."""

    key: rsa.RSAPrivateKey = field(repr=False)
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class WithRequestKey:
    """Open with a key that has no certificate yet: the envelope names it by its request's subject key
    identifier, or by no issuer at all and the request's number (RFC 10002 §6.7)."""

    key: rsa.RSAPrivateKey = field(repr=False)
    identifier: bytes | None
    number: int


@dataclass(frozen=True, slots=True)
class WithPassword:
    """Open with a password."""

    password: bytes = field(repr=False)


def envelope(
    content: bytes,
    recipient: ForCertificate | ForKey | ForPassword,
    random: RandomBytes,
    *,
    cipher: ContentCipher = ContentCipher.AES128,
) -> bytes:
    """A DER EnvelopedData with *content* as id-data.

    Raises :class:`LocalProtocolError` ``cms.recipient`` for a certificate without an RSA key.
    """
    key, vector = random(cipher.key_size), random(cipher.block)
    match recipient:  # the version follows from it (RFC 5652 §6.1)
        case ForCertificate():
            version, info = "v0", _for_certificate(recipient, key)
        case ForKey():
            version, info = "v2", _for_key(recipient, key)
        case ForPassword():
            version, info = "v3", _for_password(recipient, key, random)
    data = {
        "version": version,
        "recipient_infos": [info],
        "encrypted_content_info": {
            "content_type": "data",
            "content_encryption_algorithm": {"algorithm": cipher.value, "parameters": vector},
            "encrypted_content": encrypt(cipher, key, vector, content),
        },
    }
    whole = asn1_cms.ContentInfo({"content_type": "enveloped_data", "content": asn1_cms.EnvelopedData(data)})
    made = whole.dump()
    assert isinstance(made, bytes)
    return made


def open_enveloped(
    der: bytes,
    opener: WithKey | WithRequestKey | WithPassword,
    random: RandomBytes,
    *,
    ciphers: frozenset[ContentCipher] = _AES_ONLY,
    limit: int = CMS_LIMIT,
) -> bytes:
    """The content of an envelope that is meant for *opener*.

    *ciphers* are those that may have been used. Raises what :func:`enveloped_data` raises,
    :class:`RemoteProtocolError` ``cms.legacy-cipher`` and ``cms.recipient`` (for somebody else),
    :class:`TrustError` ``cms.decrypt`` for everything that the key or the password showed to be wrong, and
    what a key in hardware raises for its own reasons.
    """
    fields = enveloped_data(der, limit=limit)
    used = {fields.cipher, *(wrapped.cipher for wrapped in fields.passwords)}
    if refused := used - ciphers:
        names = ", ".join(sorted(cipher.value for cipher in refused))
        raise RemoteProtocolError("cms.legacy-cipher", f"encrypted with {names}", clause="RFC 8894 §2.9")
    fallback = random(fields.cipher.key_size)
    match opener:
        case WithPassword(password):
            found = _by_password(fields, password)
        case _:
            found = _by_key(fields, opener)
    key = found if len(found) == fields.cipher.key_size else fallback
    content = decrypt(fields.cipher, key, fields.vector, fields.encrypted)
    if content is None:
        raise TrustError("cms.decrypt", "the envelope does not open", clause="RFC 5652 §6.3")
    return content


def _for_certificate(recipient: ForCertificate, key: bytes) -> asn1_cms.RecipientInfo:
    certificate = recipient.certificate
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        detail = "the recipient's key does not encrypt: only RSA does"
        raise LocalProtocolError("cms.recipient", detail)
    issued = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    algorithm: dict[str, object] = {"algorithm": "rsaes_pkcs1v15", "parameters": core.Null()}
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if recipient.oaep:
        scheme = _oaep("sha256")
        mask = {"algorithm": "mgf1", "parameters": {"algorithm": "sha256"}}
        parameters = algos.RSAESOAEPParams(
            {"hash_algorithm": {"algorithm": "sha256"}, "mask_gen_algorithm": mask}
        )
        algorithm = {"algorithm": "rsaes_oaep", "parameters": parameters}
    names = {"issuer": issued.issuer, "serial_number": issued.serial_number}
    info = {
        "version": "v0",
        "rid": asn1_cms.RecipientIdentifier("issuer_and_serial_number", names),
        "key_encryption_algorithm": algorithm,
        "encrypted_key": public.encrypt(key, scheme),
    }
    return asn1_cms.RecipientInfo("ktri", info)


def _for_key(recipient: ForKey, key: bytes) -> asn1_cms.RecipientInfo:
    info = {
        "version": "v2",
        "rid": asn1_cms.RecipientIdentifier("subject_key_identifier", recipient.identifier),
        "key_encryption_algorithm": {"algorithm": "rsaes_pkcs1v15", "parameters": core.Null()},
        "encrypted_key": recipient.key.encrypt(key, padding.PKCS1v15()),
    }
    return asn1_cms.RecipientInfo("ktri", info)


def _for_password(recipient: ForPassword, key: bytes, random: RandomBytes) -> asn1_cms.RecipientInfo:
    cipher = ContentCipher.AES256 if len(key) > 16 else ContentCipher.AES128
    salt, vector = random(16), random(cipher.block)
    kek = derive(recipient.password, salt, recipient.iterations, "sha256", cipher.key_size)
    derivation = {
        "salt": algos.Pbkdf2Salt("specified", salt),
        "iteration_count": recipient.iterations,
        "prf": {"algorithm": "sha256", "parameters": core.Null()},
    }
    wrapping = algos.EncryptionAlgorithm({"algorithm": cipher.value, "parameters": vector})
    info = {
        "version": "v0",
        "key_derivation_algorithm": {"algorithm": "pbkdf2", "parameters": algos.Pbkdf2Params(derivation)},
        "key_encryption_algorithm": {"algorithm": oids.PWRI_KEK, "parameters": wrapping},
        "encrypted_key": wrap(cipher, kek, vector, key, random),
    }
    return asn1_cms.RecipientInfo("pwri", info)


def _by_key(fields: EnvelopedFields, opener: WithKey | WithRequestKey) -> bytes:
    """What the private key makes of our recipient's part; empty where that failed."""
    ours = next((each for each in fields.transports if _names(each, opener)), None)
    if ours is None:
        count = len(fields.transports) + len(fields.passwords) + fields.other
        detail = f"none of {count} recipients is the certificate that asked"
        raise RemoteProtocolError("cms.recipient", detail, clause="RFC 5652 §6.2.1")
    return _transported(ours, opener.key)


def _names(recipient: KeyTransport, opener: WithKey | WithRequestKey) -> bool:
    if isinstance(opener, WithKey):
        return recipient.names(opener.certificate)
    if recipient.key_identifier is not None:
        return recipient.key_identifier == opener.identifier
    return recipient.issuer == _NO_NAME and recipient.serial == opener.number


def _transported(ours: KeyTransport, key: rsa.RSAPrivateKey) -> bytes:
    scheme = padding.PKCS1v15() if ours.oaep is None else _oaep(ours.oaep)
    try:
        return key.decrypt(ours.encrypted_key, scheme)
    except ValueError:
        return b""
    except KeyStoreError as error:
        if error.code != "key.decrypt-failed":
            raise
        return b""


def _by_password(fields: EnvelopedFields, password: bytes) -> bytes:
    if not fields.passwords:
        detail = f"{len(fields.transports) + fields.other} recipients, and none by password"
        raise RemoteProtocolError("cms.recipient", detail, clause="RFC 5652 §6.2.4")
    return _unwrapped(fields.passwords[0], password)


def _unwrapped(part: PasswordWrap, password: bytes) -> bytes:
    kek = derive(password, part.salt, part.iterations, part.prf, part.cipher.key_size)
    return unwrap(part.cipher, kek, part.vector, part.encrypted_key)


def _oaep(name: str) -> padding.OAEP:
    digest = _HASHES[name]()
    return padding.OAEP(padding.MGF1(digest), digest, None)
