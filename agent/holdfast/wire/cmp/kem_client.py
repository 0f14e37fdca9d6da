"""Messages under a KEM key of ours: the exchange that brings the ciphertext (RFC 9810 appendix E).

The private key stays with the caller, who hands in what decapsulates; no library has to know the KEM. The
ciphertext may come unprotected, since anybody can make one: with a wrong one we make a MAC that the server
refuses. For the same reason no MAC under that secret proves a server to us, and answers are signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.cmp import bodies, oids
from holdfast.wire.cmp.kem import CIPHERTEXTS, CLAUSE, SHARED, KemCiphertext, KemParameters, read_ciphertext
from holdfast.wire.cmp.message import Body, Message
from holdfast.wire.cmp.protection import key_identifier
from holdfast.wire.cmp.transaction import Refusal, Transaction, Waiting
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.identified import Algorithm, Info, named
from holdfast.wire.model import Chain, Exchange, Moment, RandomBytes

PARAMETERS: Final = KemParameters()


@dataclass(frozen=True, slots=True)
class KemIdentity:
    """A KEM certificate with its issuers, leaf first, and what gives the secret of a ciphertext.

    ``decapsulate`` may raise ValueError for a ciphertext that it cannot use. Raises LocalProtocolError
    ``cmp.kem`` when made.
    """

    chain: Chain
    decapsulate: Callable[[bytes], bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.chain or self.kem not in CIPHERTEXTS:
            raise LocalProtocolError("cmp.kem", "no certificate of a known KEM key", clause=CLAUSE)

    @property
    def kem(self) -> str:
        """The algorithm of the key."""
        return self.chain[0].public_key_algorithm_oid.dotted_string


@dataclass(slots=True)
class KemProtector:
    """Protection by a MAC. Its key is there once a ciphertext came (:meth:`take`)."""

    identity: KemIdentity
    _transaction: bytes = b""
    _shared: bytes = field(default=b"", repr=False)

    @property
    def sender(self) -> bytes:
        return named(self.identity.chain[0].subject)

    @property
    def key_id(self) -> bytes:
        return key_identifier(self.identity.chain[0])

    @property
    def extra_certs(self) -> tuple[bytes, ...]:
        leaf, *issuers = self.identity.chain
        needed = (leaf, *(c for c in issuers if c.issuer != c.subject))
        return tuple(c.public_bytes(Encoding.DER) for c in needed)

    def take(self, info: KemCiphertext, transaction: bytes) -> None:
        """The secret of *info*, for *transaction* alone.

        Raises RemoteProtocolError ``cmp.kem-ciphertext``; LocalProtocolError ``cmp.kem-unavailable``.
        """
        if info.kem != self.identity.kem:
            detail = f"a ciphertext of {info.kem} for a key of {self.identity.kem}"
            raise RemoteProtocolError("cmp.kem-ciphertext", detail, clause=CLAUSE)
        try:
            shared = self.identity.decapsulate(info.ciphertext)
        except UnsupportedAlgorithm as error:
            raise LocalProtocolError("cmp.kem-unavailable", f"no decapsulation here: {error}") from error
        except ValueError as error:
            detail = "the ciphertext cannot be decapsulated"
            raise RemoteProtocolError("cmp.kem-ciphertext", detail, clause=CLAUSE) from error
        if len(shared) != SHARED:
            raise LocalProtocolError("cmp.kem", f"decapsulation gave {len(shared)} octets, not {SHARED}")
        self._transaction, self._shared = transaction, shared

    def start(self, random: RandomBytes) -> tuple[Algorithm, Callable[[bytes], bytes]]:  # noqa: ARG002
        if not self._shared:
            raise LocalProtocolError("cmp.kem", "nothing was encapsulated yet", clause=CLAUSE)
        return PARAMETERS.algorithm(), self._mac

    def _mac(self, data: bytes) -> bytes:
        return PARAMETERS.compute(self._shared, self._transaction, data)


def agree(transaction: Transaction, protector: KemProtector, now: Moment) -> Exchange[Refusal | None]:
    """Ask for a ciphertext, with the KEM certificate in extraCerts; afterwards *protector* can protect.

    Returns an authenticated refusal. Raises RemoteProtocolError ``cmp.kem-ciphertext`` (none, or none for
    our key), ``cmp.unavailable`` (not now), and what the transaction raises.
    """
    content = bodies.general(Info(oids.KEM_CIPHERTEXT))
    answer = yield from transaction.ask(
        Body.GENM, content, now, expected=(Body.GENP,), support=oids.KEM_CIPHERTEXT, bare=True
    )
    if isinstance(answer, Refusal):
        return answer
    if isinstance(answer, Waiting):
        raise RemoteProtocolError("cmp.unavailable", "no ciphertext yet", busy=True, retry_after=answer.after)
    info = _ciphertext(answer)
    protector.take(info, transaction.id)
    transaction.ciphertext = info.encode()
    # The certificate request is the first of the messages that a CA behind an RA gets to see.
    transaction.first, transaction.target = b"", ""
    return None


def go_on(transaction: Transaction, protector: KemProtector) -> None:
    """Decapsulate again after a transaction was restored. Raises LocalProtocolError ``cmp.resume``."""
    try:
        protector.take(read_ciphertext(transaction.ciphertext), transaction.id)
    except RemoteProtocolError as error:
        detail = f"unusable ciphertext in the resume token: {error.detail}"
        raise LocalProtocolError("cmp.resume", detail) from error


def _ciphertext(answer: Message) -> KemCiphertext:
    infos = bodies.read_general(answer.content)
    found = next((i for i in infos if i.oid == oids.KEM_CIPHERTEXT), None)
    if found is None or not found.value:
        raise RemoteProtocolError("cmp.kem-ciphertext", "genp without a ciphertext", clause=CLAUSE)
    return read_ciphertext(found.value)
