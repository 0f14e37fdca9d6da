"""One conversation with a SCEP server: meet it, then ask it one thing.

What may be said to it and how follows from its capabilities, from what an operator allows beyond the
standard, and from who can read the answer. All of that is known before the first message is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.cms_enveloped import (
    ForCertificate,
    ForPassword,
    WithKey,
    WithPassword,
    envelope,
    open_enveloped,
)
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import Exchange, Moment, RandomBytes
from holdfast.wire.scep import http, messages
from holdfast.wire.scep.authority import Authority, Trust, authenticate, read_certificates
from holdfast.wire.scep.capabilities import Capabilities, read_capabilities
from holdfast.wire.scep.messages import Message
from holdfast.wire.scep.settings import Legacy, ScepLimits
from holdfast.wire.scep.signer import Signer
from holdfast.wire.scep.vocabulary import NONCE_SIZE, MessageType, PkiStatus

_DES_HINT: Final = (
    "RFC 8894 forbids single DES and no switch allows it. For step-ca the option is "
    "encryptionAlgorithmIdentifier: 2; micromdm's scepserver has none and must be built with AES, or replaced"
)
_SHA1_HINT: Final = (
    f"the reply is signed with SHA-1; `legacy: [{Legacy.SHA1.value}]` in the configuration allows it. "
    "Micromdm's scepserver and step-ca sign so, whatever they announce"
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How we speak: where to, what vouches for the server, what is allowed beyond the standard."""

    site: http.Site
    trust: Trust
    legacy: frozenset[Legacy]
    cipher: ContentCipher
    limits: ScepLimits
    now: Moment

    @property
    def sha1(self) -> bool:
        return Legacy.SHA1 in self.legacy


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, under which transactionID. ``password`` is the challenge, if there is one: ``secret`` says
    that the message holds it, ``by_password`` that the answer may be encrypted with it."""

    signer: Signer
    transaction: str
    random: RandomBytes = field(repr=False)
    password: bytes | None = field(default=None, repr=False)
    secret: bool = False
    by_password: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that every check held for; ``content`` is what the envelope held."""

    message: Message
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was met: what it can, and whose certificates are its own."""

    manner: Manner
    capabilities: Capabilities
    authority: Authority

    def preflight(self, *, secret: bool, by_password: bool) -> None:
        """Raise unless a message can be made for this server and its answer be read.

        RemoteProtocolError ``scep.weak-server``, ``scep.no-recipient``, ``scep.get-challenge``, each of
        them ``unsupported``: another protocol may do.
        """
        self._cipher()
        if not self.capabilities.sha2 and Legacy.SHA1 not in self.manner.legacy:
            raise _unfit("weak-server", "the server announces no digest but SHA-1", Legacy.SHA1)
        if self.authority.recipient is None and not by_password:
            detail = "the server has no RSA certificate to encrypt a request for"
            raise RemoteProtocolError("scep.no-recipient", detail, clause="RFC 8894 §2.2", unsupported=True)
        if self.capabilities.post:
            return
        if self.authority.recipient is None:
            detail = "a message that only the challenge protects does not go into a URL"
            raise RemoteProtocolError("scep.get-challenge", detail, unsupported=True)
        if secret and Legacy.GET not in self.manner.legacy:
            raise _unfit("get-challenge", "the server takes the challenge only in a URL", Legacy.GET)

    def ask(self, kind: MessageType, content: bytes, asker: Asker) -> Exchange[Reply]:
        """Send one message and check the reply.

        Raises what :meth:`preflight`, :func:`messages.read`, :func:`messages.check_reply`,
        :func:`open_enveloped` and :func:`http.checked` raise, and RemoteProtocolError ``scep.cipher``.
        """
        self.preflight(secret=asker.secret, by_password=asker.by_password)
        nonce = asker.random(NONCE_SIZE)
        message = Message(kind, asker.transaction, nonce, self._sealed(content, asker))
        signer = asker.signer
        der = messages.encode(message, signer.key, signer.certificate, signer.chain[1:])
        site = self.manner.site
        resp = yield site.post(der) if self.capabilities.post else site.get(der)
        limit = self.manner.limits.body
        body = http.checked(resp, "PKIOperation", frozenset({http.MESSAGE_TYPE}), self.manner.now, limit)
        received = self._read(body)
        reply = messages.check_reply(received, self.authority.signers, asker.transaction, nonce)
        if reply.status is not PkiStatus.SUCCESS:
            return Reply(reply)
        return Reply(reply, self._opened(reply.envelope, asker))

    def _read(self, body: bytes) -> messages.Received:
        known, limit = self.authority.signers, self.manner.limits.body
        received = messages.read(body, known=known, sha1=True, limit=limit)
        if received.digest == "sha1" and not self.manner.sha1:
            raise TrustError("scep.digest", _SHA1_HINT, clause="RFC 8894 §2.9")
        return received

    def _cipher(self) -> ContentCipher:
        if self.capabilities.aes:
            return self.manner.cipher
        if Legacy.DES3 in self.manner.legacy:
            return ContentCipher.DES3
        raise _unfit("weak-server", "the server announces triple DES and no AES", Legacy.DES3)

    def _sealed(self, content: bytes, asker: Asker) -> bytes:
        recipient = self.authority.recipient
        if recipient is not None:
            return envelope(content, ForCertificate(recipient), asker.random, cipher=self._cipher())
        if asker.password is None:
            raise LocalProtocolError("scep.no-challenge", "there is no challenge to encrypt the request with")
        return envelope(content, ForPassword(asker.password), asker.random, cipher=self._cipher())

    def _opened(self, der: bytes, asker: Asker) -> bytes:
        key = asker.signer.key
        opener: WithKey | WithPassword | None = None
        if isinstance(key, rsa.RSAPrivateKey):
            opener = WithKey(key, asker.signer.certificate)
        elif asker.by_password and asker.password is not None:
            opener = WithPassword(asker.password)
        if opener is None:
            raise LocalProtocolError("scep.key-cannot-decrypt", "nobody here can read the answer")
        aes = {ContentCipher.AES128, ContentCipher.AES256}
        allowed = aes | ({ContentCipher.DES3} if Legacy.DES3 in self.manner.legacy else set())
        limit = self.manner.limits.body
        try:
            return open_enveloped(der, opener, asker.random, ciphers=frozenset(allowed), limit=limit)
        except RemoteProtocolError as error:
            raise _explained(error) from error


def meet(manner: Manner) -> Exchange[Server]:
    """Ask what the server can and who it is.

    Raises what :func:`http.checked`, :func:`read_certificates` and :func:`authenticate` raise.
    """
    resp = yield manner.site.query("GetCACaps")
    capabilities = read_capabilities(resp)
    resp = yield manner.site.query("GetCACert")
    types = frozenset({http.CA_CERT, http.CA_RA_CERT})
    body = http.checked(resp, "GetCACert", types, manner.now, manner.limits.body)
    authority = authenticate(read_certificates(body), manner.trust, manner.now)
    return Server(manner, capabilities, authority)


def _unfit(code: str, detail: str, switch: Legacy) -> RemoteProtocolError:
    text = f"{detail}; `legacy: [{switch.value}]` in the configuration allows it"
    return RemoteProtocolError(f"scep.{code}", text, clause="RFC 8894 §2.9", unsupported=True)


def _explained(error: RemoteProtocolError) -> RemoteProtocolError:
    """What an operator can do about a cipher that is not accepted."""
    if error.code == "cms.weak-cipher":
        hint = _DES_HINT if "single DES" in error.detail else "The server must be set to AES-CBC"
        return RemoteProtocolError("scep.cipher", f"{error.detail}. {hint}", clause=error.clause)
    if error.code == "cms.legacy-cipher":
        detail = f"{error.detail}; `legacy: [{Legacy.DES3.value}]` in the configuration allows triple DES"
        return RemoteProtocolError("scep.cipher", detail, clause=error.clause)
    return error
