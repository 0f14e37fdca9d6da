"""Who protects our messages, and whose protection we believe (RFC 9810 §5.1.3, RFC 9483 §3.2, §3.5).

One credential and one mechanism hold for a whole transaction. An answer to a signed request must be signed by
somebody whom the domain's anchors vouch for as a CMP authority; an answer to a request under a shared
secret must be under the same secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import algorithm_oids, certificates, chain, der
from holdfast.wire.algorithms import sign_data, spki
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.cmp import mac, oids
from holdfast.wire.cmp.mac import MacParameters
from holdfast.wire.cmp.message import Message
from holdfast.wire.errors import LocalProtocolError, TrustError
from holdfast.wire.identified import Algorithm, directory_name, named
from holdfast.wire.message_signatures import is_signature, signature_algorithm, verify_by
from holdfast.wire.model import Chain, Moment, RandomBytes, SigningKey

SALT: Final = 16


class Protector(Protocol):
    """Protects the messages of one transaction."""

    @property
    def sender(self) -> bytes:
        """Who we are, as GeneralName."""
        ...

    @property
    def key_id(self) -> bytes: ...

    @property
    def extra_certs(self) -> tuple[bytes, ...]: ...

    def start(self, random: RandomBytes) -> tuple[Algorithm, Callable[[bytes], bytes]]:
        """The algorithm for one message, and what makes the protection from the octets that it covers."""
        ...


@dataclass(frozen=True, slots=True)
class Signer:
    """Protection by a signature. The key may live in hardware. ``chain``: leaf first."""

    chain: Chain
    key: SigningKey = field(repr=False)

    @property
    def sender(self) -> bytes:
        return named(self.chain[0].subject)

    @property
    def key_id(self) -> bytes:
        return key_identifier(self.chain[0])

    @property
    def extra_certs(self) -> tuple[bytes, ...]:
        """The protecting certificate first, then its issuers without the root (RFC 9483 §3.3)."""
        leaf, *issuers = self.chain
        needed = (leaf, *(c for c in issuers if c.issuer != c.subject))
        return tuple(c.public_bytes(Encoding.DER) for c in needed)

    def start(self, random: RandomBytes) -> tuple[Algorithm, Callable[[bytes], bytes]]:  # noqa: ARG002
        algorithm, digest = signature_algorithm(self.key)
        return algorithm, lambda data: sign_data(self.key, data, digest)


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """Protection by a shared secret that ``reference`` names. The secret never shows in a repr.

    ``kind`` is ``pbm`` or ``pbmac1``. ``hmac_sha1``: answers may use that, too.
    """

    reference: str
    secret: bytes = field(repr=False)
    kind: str = "pbm"
    iterations: int = 10_000
    hmac_sha1: bool = False
    extra_certs: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def verifier(self) -> UnderSecret:
        """What judges the answers."""
        return UnderSecret(self.secret, hmac_sha1=self.hmac_sha1)

    def __post_init__(self) -> None:
        if not self.secret or not self.reference:
            raise LocalProtocolError("cmp.secret", "a shared secret and its reference are not empty")

    @property
    def sender(self) -> bytes:
        """A common name that repeats the reference (RFC 9483 §3.1)."""
        attribute = der.sequence(der.oid(oids.COMMON_NAME), der.text(self.reference))
        return directory_name(der.sequence(der.tlv(der.SET, attribute)))

    @property
    def key_id(self) -> bytes:
        return self.reference.encode()

    def start(self, random: RandomBytes) -> tuple[Algorithm, Callable[[bytes], bytes]]:
        owf = algorithm_oids.SHA256 if self.kind == "pbm" else algorithm_oids.HMAC_SHA256
        parameters = MacParameters(self.kind, random(SALT), self.iterations, owf)
        return parameters.algorithm(), lambda data: parameters.compute(self.secret, data)


class Verifier(Protocol):
    """Judges the protection of answers in one transaction."""

    def check(self, message: Message, now: Moment) -> bytes:
        """Raise TrustError or RemoteProtocolError unless *message* is protected as it must be.

        Returns what identifies the protector: it stays the same for a whole transaction.
        """
        ...


@dataclass(frozen=True, slots=True)
class SignedByAuthority:
    """Answers are signed by a CMP authority under ``anchors``.

    ``pins``: SHA-256 of the SubjectPublicKeyInfo of authorities that need not be CA or carry cmcCA or cmcRA.
    ``intermediates`` help to build the path, besides what extraCerts brings.
    """

    anchors: Chain
    pins: frozenset[bytes] = frozenset()
    intermediates: Chain = ()

    def check(self, message: Message, now: Moment) -> bytes:
        algorithm = protection_of(message)
        if not is_signature(algorithm):
            detail = f"the answer to a signed request is protected by {algorithm.oid}"
            raise TrustError("cmp.protection-kind", detail, clause="RFC 9483 §3.5")
        given = certificates.load_all(message.extra_certs)
        signer = _signer(message, (*given, *self.intermediates, *self.anchors))
        assert message.protection is not None
        try:
            verify_by(signer, algorithm, message.protection, message.protected)
        except TrustError as error:
            if error.code != "signature.invalid":
                raise
            raise TrustError("cmp.protection", error.detail, clause="RFC 9810 §5.1.3") from error
        others = [c for c in dict.fromkeys((*given, *self.intermediates)) if c != signer]
        path = (signer, *others)[: chain.MAX_CHAIN]
        pinned = hashlib.sha256(spki(signer)).digest() in self.pins
        chain.validate(path, self.anchors, now, chain.Rule.message_authority(pinned=pinned))
        return hashlib.sha256(signer.public_bytes(Encoding.DER)).digest()


@dataclass(frozen=True, slots=True)
class UnderSecret:
    """Answers are protected by the same secret as the requests.

    ``most``: iterations made for the peer; ``hmac_sha1``: the peer may use that.
    """

    secret: bytes = field(repr=False)
    most: int = mac.MOST
    hmac_sha1: bool = False

    def check(self, message: Message, now: Moment) -> bytes:  # noqa: ARG002 - a secret has no validity
        algorithm = protection_of(message)
        if not mac.is_mac(algorithm):
            detail = f"the answer to a request under a shared secret is protected by {algorithm.oid}"
            raise TrustError("cmp.protection-kind", detail, clause="RFC 9483 §3.5")
        assert message.protection is not None
        protected = (message.protected, message.protection)
        mac.check(algorithm, self.secret, protected, most=self.most, hmac_sha1=self.hmac_sha1)
        return algorithm.oid.encode()


def protection_of(message: Message) -> Algorithm:
    """The algorithm of a message that has a protection. Raises TrustError ``cmp.unprotected``."""
    algorithm = message.header.protection
    if algorithm is None or message.protection is None:
        detail = f"{message.kind.label} without protection"
        raise TrustError("cmp.unprotected", detail, clause="RFC 9483 §3.2")
    return algorithm


def key_identifier(certificate: x509.Certificate) -> bytes:
    """The subject key identifier; empty if the certificate has none."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, *LIBRARY_ERRORS):
        return b""


def _signer(message: Message, candidates: Chain) -> x509.Certificate:
    """The certificate whose subject is the sender; among several, the one that senderKID names.

    senderKID is a hint and no proof: some servers repeat ours (mpeylo/cmpossl#212).
    """
    subjects = [c for c in dict.fromkeys(candidates) if same_name(named(c.subject), message.header.sender)]
    if not subjects:
        detail = "no certificate in the answer or among the anchors has the sender as its subject"
        raise TrustError("cmp.sender", detail, clause="RFC 9483 §3.1")
    kid = message.header.sender_kid
    return next((c for c in subjects if kid and key_identifier(c) == kid), subjects[0])


def same_name(one: bytes, other: bytes) -> bool:
    """Whether two GeneralNames are directory names that are equal by RFC 5280 §7.1."""
    if one == other:
        return True
    try:
        first, second = (_name(each) for each in (one, other))
        return bool(first == second)
    except (ValueError, TypeError, KeyError):
        return False


def _name(general: bytes) -> asn1_x509.Name:
    outer = der.Cursor(general)
    inner = outer.inside(0xA4)
    outer.close()
    name = asn1_x509.Name.load(inner.any(), strict=True)
    inner.close()
    return name
