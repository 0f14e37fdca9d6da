"""What survives a power cut between two messages of one transaction."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire.certificates import load_all
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.model import Chain, EnrollmentRequest

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Token:
    """``request`` names the one request that it belongs to; ``pending`` is what to ask with; ``chain`` a
    certificate that came and is to be confirmed; ``peer_nonce`` the server's last nonce."""

    request: str
    pending: bytes = field(default=b"", repr=False)
    peer_nonce: bytes = b""
    chain: Chain = ()

    def encode(self) -> bytes:
        fields = {
            "v": _VERSION,
            "request": self.request,
            "pending": _text(self.pending),
            "nonce": _text(self.peer_nonce),
            "chain": [_text(c.public_bytes(Encoding.DER)) for c in self.chain],
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def read(cls, data: bytes, req: EnrollmentRequest) -> Token:
        """Raises LocalProtocolError ``cmc.resume`` unless it is one of ours for *req*."""
        try:
            fields = json.loads(data)
            if fields["v"] != _VERSION:
                raise ValueError(f"version {fields['v']}")
            chain = load_all(map(_octets, fields["chain"]))
            found = cls(str(fields["request"]), _octets(fields["pending"]), _octets(fields["nonce"]), chain)
        except (ValueError, TypeError, KeyError, RemoteProtocolError) as error:
            raise LocalProtocolError("cmc.resume", f"unusable resume token: {error}"[:300]) from error
        if found.request != fingerprint(req):
            raise LocalProtocolError("cmc.resume", "the resume token belongs to another request")
        return found


def fingerprint(req: EnrollmentRequest) -> str:
    """The SHA-256 of the CSR, which is durable with the caller."""
    return hashlib.sha256(req.csr).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
