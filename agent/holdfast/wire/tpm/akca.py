"""How a device gets a certificate for its attestation key (AK): two JSON requests to an attestation CA.

1. The device shows its endorsement key (EK) with the maker's certificate, and its AK. The CA seals a secret
   that only the TPM of that EK opens, and only if it holds that AK.
2. The device sends the opened secret and gets the certificate.

No standard names such a protocol, so this one is small and ours; what it proves is TPM 2.0 Part 1 §24.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.http import media_type, printable
from holdfast.wire.model import Chain, Exchange, HttpRequest, HttpResponse
from holdfast.wire.tpm.public import parse_public

PATH: Final = "/attestation-ca/v1/"
JSON: Final = "application/json"
LIMIT: Final = 64 * 1024
MOST_CERTIFICATES: Final = 8
T = TypeVar("T")

Activate = Callable[[bytes, bytes], bytes]
"""TPM2_ActivateCredential: from id object and encrypted secret to the secret."""


@dataclass(frozen=True, slots=True)
class Application:
    """What the device shows. Binary values are base64 in JSON.

    ``ek_public`` and ``ak_public`` are TPMT_PUBLIC, ``ek_chain`` DER certificates, the EK's own first,
    empty if the TPM has none. ``identifier`` is the permanent identifier that the device asks for; empty
    leaves it to the CA."""

    ek_public: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)
    ek_chain: tuple[bytes, ...] = field(default=(), repr=False)
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the CA answers: the name of the application, and the secret that the TPM is to open."""

    id: str
    id_object: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """The opened secret."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certified:
    """The AK's certificate and its issuers, DER, leaf first."""

    chain: tuple[bytes, ...] = field(repr=False)


def apply(application: Application, activate: Activate) -> Exchange[Chain]:
    """The certificate chain for the AK, leaf first, without its root.

    The caller's connection has authenticated the CA. Raises RemoteProtocolError ``akca.refused``,
    ``akca.unavailable``, ``akca.syntax``, ``akca.type``, ``akca.too-large``, ``certificate.syntax``;
    TrustError ``akca.key-mismatch``; and what *activate* raises."""
    answer = yield _request("challenge", application)
    challenge = read(answer, Challenge)
    secret = activate(challenge.id_object, challenge.encrypted_secret)
    answer = yield _request("certificate", Response(challenge.id, secret))
    chain = certificates.load_all(read(answer, Certified).chain[:MOST_CERTIFICATES])
    if not chain or not _is_for(chain[0], application.ak_public):
        raise TrustError("akca.key-mismatch", "the certificate is not for the attestation key")
    return chain


def read(resp: HttpResponse, kind: type[T]) -> T:
    """The JSON of a 200 answer as *kind*."""
    if resp.status != 200:
        text = printable(resp.body[:400].decode(errors="replace"))
        code = "akca.refused" if 400 <= resp.status < 500 else "akca.unavailable"
        raise RemoteProtocolError(code, f"HTTP {resp.status}: {text}", busy=resp.status >= 500)
    if len(resp.body) > LIMIT:
        raise RemoteProtocolError("akca.too-large", f"{len(resp.body)} octets, limit {LIMIT}")
    essence, _ = media_type(resp)
    if essence != JSON:
        raise RemoteProtocolError("akca.type", f"the answer is {printable(essence) or 'untyped'}")
    return decode(resp.body, kind)


def decode(body: bytes, kind: type[T]) -> T:
    """*body* as *kind*. Raises RemoteProtocolError ``akca.syntax``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError("akca.syntax", f"{kind.__name__}: {error}"[:300]) from error


def encode(value: Application | Challenge | Response | Certified) -> bytes:
    """The JSON text of a message."""
    return msgspec.json.encode(value)


def split(ders: bytes) -> tuple[bytes, ...]:
    """The certificates of concatenated DER, as TPM makers leave chains in NV; what does not parse ends it."""
    found: list[bytes] = []
    while ders[:2] == b"\x30\x82" and len(found) < MOST_CERTIFICATES:
        length = 4 + int.from_bytes(ders[2:4], "big")
        try:
            found.append(x509.load_der_x509_certificate(ders[:length]).public_bytes(Encoding.DER))
        except LIBRARY_ERRORS:
            break
        ders = ders[length:]
    return tuple(found)


def _request(operation: str, value: Application | Response) -> HttpRequest:
    return HttpRequest("POST", PATH + operation, (("Content-Type", JSON), ("Accept", JSON)), encode(value))


def _is_for(leaf: x509.Certificate, area: bytes) -> bool:
    return bool(leaf.public_key() == parse_public(area).key)
