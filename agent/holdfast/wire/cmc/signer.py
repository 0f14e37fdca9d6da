"""Who signs a Full PKI Request: an identity, or the key that is to be certified (RFC 10002 §3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from holdfast.wire import cms, csr
from holdfast.wire.algorithms import spki
from holdfast.wire.cmc.vocabulary import PKI_DATA
from holdfast.wire.errors import LocalProtocolError
from holdfast.wire.model import Chain, SigningKey


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key; the chain has the leaf first."""

    chain: Chain
    key: SigningKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """SignedData around a PKIData."""
        issuers = tuple(c for c in self.chain[1:] if c.issuer != c.subject)
        return cms.sign(data, PKI_DATA, self.key, self.chain[0], issuers)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key of the request itself, named by the subject key identifier that the request asks for."""

    key: SigningKey = field(repr=False)
    identifier: bytes

    @classmethod
    def of(cls, key: SigningKey, asked: x509.CertificateSigningRequest) -> RequestKey:
        """Raises LocalProtocolError ``cmc.key-identifier``: the request must name its key."""
        try:
            extension = asked.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound as error:
            detail = "a request that its own key signs must ask for a subject key identifier"
            raise LocalProtocolError("cmc.key-identifier", detail, clause="RFC 10002 §3.2") from error
        if csr.public_bytes(asked) != spki(key):
            raise LocalProtocolError("cmc.csr", "the CSR is not for the key of the request")
        return cls(key, extension.value.digest)

    def sign(self, data: bytes) -> bytes:
        """SignedData around a PKIData."""
        return cms.sign_by_key(data, PKI_DATA, self.key, self.identifier)


@dataclass(frozen=True, slots=True)
class Nobody:
    """No signature: for a revocation by a secret alone (RFC 10002 §6.11)."""

    def sign(self, data: bytes) -> bytes:
        """SignedData around a PKIData, without a signature."""
        return cms.unsigned(data, PKI_DATA)


Signer = Identity | RequestKey | Nobody
