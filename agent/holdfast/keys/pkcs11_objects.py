"""The objects that a key has on a token: private key, public key and, once promoted, its certificate.

All of them carry one label, ``<prefix>-<identity>-<generation>``, and its octets in ASCII as ``CKA_ID``. What
follows another convention is not ours: it is neither listed nor touched. Functions run inside
:meth:`TokenSession.run` and raise PKCS11Error besides what they name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11 import Attribute, CertificateType, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.key_files import file_name
from holdfast.keys.pkcs11_faults import TEMPLATE_REFUSED
from holdfast.keys.pkcs11_uri import SCHEME, Pkcs11Uri, parse
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast.wire.model import KeyAlgorithm

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_CLASSES: Final = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY, ObjectClass.CERTIFICATE)
_CURVES: Final[dict[bytes, ec.EllipticCurve]] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
}
_CURVE_OF: Final = {
    KeyAlgorithm.P256: bytes.fromhex("06082a8648ce3d030107"),
    KeyAlgorithm.P384: bytes.fromhex("06052b81040022"),
}
_BITS_OF: Final = {KeyAlgorithm.RSA2048: 2048, KeyAlgorithm.RSA3072: 3072}
_SIGN: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY
_DECRYPT: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
_ALL_OR_NONE: Final = frozenset({"tpm2-software.github.io"})
"""Modules that make keys only for signing and decrypting at once, and tell it after the key was made."""

Found = dict[Attribute, Any]


class Labels:
    """The labels of one agent on a token that it may share: they start with *prefix* and ``-``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ours = re.compile(re.escape(prefix) + r"-[a-z0-9][a-z0-9_-]{0,62}-(0|[1-9][0-9]{0,8})")

    def label(self, identity: str, generation: int) -> str:
        """Raises KeyStoreError(``key.reference``)."""
        return f"{self._prefix}-{file_name(identity, generation)}"

    def ours(self, label: str) -> bool:
        return self._ours.fullmatch(label) is not None

    def of(self, ref: KeyRef) -> str:
        """The label that *ref* names. Raises KeyStoreError(``key.reference``, ``key.not-ours``)."""
        try:
            uri = parse(ref)
        except KeyStoreError as error:
            raise KeyStoreError("key.reference", error.detail) from error
        if uri.object is None or uri.id is None or uri.type != "private":
            raise KeyStoreError("key.reference", f"{ref[:200]!r} names no key of a token")
        if not self.ours(uri.object) or uri.id != uri.object.encode():
            raise KeyStoreError("key.not-ours", f"{ref[:200]} is not among the agent's own keys")
        return uri.object


def reference(label: str) -> KeyRef:
    """How the record names the key *label*: without its token, which is the configuration's affair."""
    return KeyRef(Pkcs11Uri(object=label, id=label.encode(), type="private").text())


def is_reference(ref: KeyRef) -> bool:
    return ref.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class Which:
    """What objects to look for: by label, by ``CKA_ID``, or both."""

    label: str | None
    id: bytes | None

    @staticmethod
    def ours(label: str) -> Which:
        return Which(label, label.encode())

    def __str__(self) -> str:
        uri = Pkcs11Uri(object=self.label, id=self.id)
        return uri.text()


def beside(private: Any, which: Which) -> Which:
    """Where public key and certificate of *private*, found by *which*, are: they share its ``CKA_ID``, while
    a maker's labels may differ."""
    identifier = read(private, Attribute.ID)
    return which if which.label and which.id else Which(None, identifier) if identifier else which


def find(session: Any, kind: ObjectClass, which: Which) -> list[Any]:
    """All objects of that class."""
    wanted: Found = {Attribute.CLASS: kind}
    if which.label is not None:
        wanted[Attribute.LABEL] = which.label
    if which.id is not None:
        wanted[Attribute.ID] = which.id
    return list(session.get_objects(wanted))


def private_key(session: Any, which: Which) -> Any:
    """The one private key. Raises KeyNotFound, KeyStoreError(``key.ambiguous``)."""
    found = find(session, ObjectClass.PRIVATE_KEY, which)
    if not found:
        raise KeyNotFound("key.not-found", f"the token has no private key {which}")
    if len(found) > 1:
        raise KeyStoreError("key.ambiguous", f"{len(found)} private keys on the token are {which}")
    return found[0]


def own_labels(session: Any, labels: Labels) -> frozenset[str]:
    """The labels of everything of ours, also of what an interrupted attempt left behind."""
    found: set[str] = set()
    for kind in _CLASSES:
        for thing in session.get_objects({Attribute.CLASS: kind}):
            label, identifier = _text(thing), _octets(thing)
            if labels.ours(label) and identifier == label.encode():
                found.add(label)
    return frozenset(found)


def destroy(session: Any, label: str) -> None:
    """Remove key pair and certificates, the private key first."""
    for kind in _CLASSES:
        for thing in find(session, kind, Which.ours(label)):
            remove(thing)


def remove(thing: Any) -> None:
    """Destroy one object."""
    thing.destroy()


def generate(session: Any, label: str, spec: KeySpec, manufacturer: str) -> None:
    """Make the key pair *label*, which must be free. Raises KeyStoreError(``key.exportable``)."""
    decrypt = _SIGN | _DECRYPT
    asked = [decrypt if spec.decrypt else _SIGN]
    if manufacturer in _ALL_OR_NONE:
        asked = [decrypt]
    elif not spec.decrypt:
        asked.append(decrypt)
    for number, uses in enumerate(asked, 1):
        try:
            _make(session, label, spec.algorithm, uses)
        except TEMPLATE_REFUSED:
            destroy(session, label)
            if number == len(asked):
                raise
        else:
            break
    key = private_key(session, Which.ours(label))
    if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
        destroy(session, label)
        raise KeyStoreError("key.exportable", "the token made a key that could be exported; it was destroyed")


def _make(session: Any, label: str, algorithm: KeyAlgorithm, uses: MechanismFlag) -> None:
    common: dict[str, Any] = {
        "label": label,
        "id": label.encode(),
        "store": True,
        "capabilities": uses,
        "private_template": {Attribute.EXTRACTABLE: False},
    }
    if algorithm in _BITS_OF:
        session.generate_keypair(KeyType.RSA, _BITS_OF[algorithm], **common)
        return
    curve = {Attribute.EC_PARAMS: _CURVE_OF[algorithm]}
    parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
    parameters.generate_keypair(mechanism=Mechanism.EC_KEY_PAIR_GEN, **common)


def public_key(session: Any, private: Any, which: Which) -> PublicKey:
    """The public half: from the private object, its public object, or its certificate.

    Raises KeyStoreError ``key.corrupt`` if the token has none of them, ``key.unsupported``.
    """
    holders = [private, *find(session, ObjectClass.PUBLIC_KEY, which)]
    for holder in holders:
        public = _rsa(holder) if private.key_type is KeyType.RSA else _elliptic(holder)
        if public is not None:
            return public
    for certificate in certificates(session, which):
        return key_of(certificate)
    raise KeyStoreError("key.corrupt", f"the token has the private key {which}, but no public half of it")


def certificates(session: Any, which: Which) -> list[x509.Certificate]:
    """The certificate objects. Raises KeyStoreError(``key.certificate``)."""
    found = (read(thing, Attribute.VALUE) or b"" for thing in find(session, ObjectClass.CERTIFICATE, which))
    try:
        return [x509.load_der_x509_certificate(value) for value in found]
    except (ValueError, x509.InvalidVersion) as error:
        raise KeyStoreError("key.certificate", f"a certificate {which} does not parse: {error}") from error


def key_of(certificate: x509.Certificate) -> PublicKey:
    """The public key in *certificate*. Raises KeyStoreError(``key.certificate``)."""
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyStoreError("key.certificate", f"the key in a certificate does not parse: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise KeyStoreError("key.certificate", "the key in a certificate is neither EC nor RSA")
    return public


def put_certificate(session: Any, label: str, certificate: x509.Certificate) -> None:
    """Make *certificate* the only one beside the key; does nothing if it is. The new one comes first."""
    der = certificate.public_bytes(Encoding.DER)
    there = find(session, ObjectClass.CERTIFICATE, Which.ours(label))
    others = [thing for thing in there if thing[Attribute.VALUE] != der]
    if len(others) == len(there):
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.CERTIFICATE,
                Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.LABEL: label,
                Attribute.ID: label.encode(),
                Attribute.SUBJECT: certificate.subject.public_bytes(),
                Attribute.ISSUER: certificate.issuer.public_bytes(),
                Attribute.SERIAL_NUMBER: core.Integer(certificate.serial_number).dump(),
                Attribute.VALUE: der,
            }
        )
    for thing in others:
        remove(thing)


def read(thing: Any, attribute: Attribute) -> Any:
    """The attribute, or None where the object does not have it or keeps it to itself."""
    try:
        return thing[attribute]
    except (PKCS11Error, ValueError, NotImplementedError):
        return None


def _text(thing: Any) -> str:
    return read(thing, Attribute.LABEL) or ""


def _octets(thing: Any) -> bytes:
    return read(thing, Attribute.ID) or b""


def _rsa(holder: Any) -> rsa.RSAPublicKey | None:
    modulus, exponent = read(holder, Attribute.MODULUS), read(holder, Attribute.PUBLIC_EXPONENT)
    if not modulus or not exponent:
        return None
    try:
        return rsa.RSAPublicNumbers(
            int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
        ).public_key()
    except ValueError as error:
        raise KeyStoreError("key.unsupported", f"the token's RSA key cannot be used: {error}") from error


def _elliptic(holder: Any) -> ec.EllipticCurvePublicKey | None:
    parameters, point = read(holder, Attribute.EC_PARAMS), read(holder, Attribute.EC_POINT)
    if not parameters or not point:
        return None
    curve = _CURVES.get(parameters)
    if curve is None:
        raise KeyStoreError("key.unsupported", "the token's EC key is neither on P-256 nor on P-384")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _bare_point(point, curve))
    except ValueError as error:
        raise KeyStoreError("key.unsupported", f"the token's EC key cannot be used: {error}") from error


def _bare_point(point: bytes, curve: ec.EllipticCurve) -> bytes:
    """The point itself: most tokens wrap it into an OCTET STRING as they should, some do not."""
    size = 1 + 2 * ((curve.key_size + 7) // 8)
    return point if len(point) == size else point[-size:] if len(point) == size + 2 else b""
