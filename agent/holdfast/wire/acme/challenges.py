"""What each kind of challenge wants to see (RFC 8555 §8, RFC 8737; device-attest-01 stands in ``attest``)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import NameOID, ObjectIdentifier

from holdfast.wire.acme.jose import b64, thumbprint
from holdfast.wire.acme.objects import Challenge, Identifier
from holdfast.wire.model import Moment, SigningKey

HTTP_01: Final = "http-01"
DNS_01: Final = "dns-01"
TLS_ALPN_01: Final = "tls-alpn-01"
DEVICE_ATTEST_01: Final = "device-attest-01"

WELL_KNOWN: Final = "/.well-known/acme-challenge/"
ALPN: Final = "acme-tls/1"
ACME_IDENTIFIER: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.31")


@dataclass(frozen=True, slots=True)
class Task:
    """A challenge that the device is to meet. ``key_authorization`` proves the account's key; no secret."""

    kind: str
    identifier: Identifier
    token: str
    key_authorization: str

    @property
    def http_target(self) -> str:
        """http-01: where ``key_authorization`` is served on port 80 (RFC 8555 §8.3)."""
        return WELL_KNOWN + self.token

    @property
    def dns_name(self) -> str:
        """dns-01: the name of the TXT record (RFC 8555 §8.4)."""
        return f"_acme-challenge.{self.identifier.value.removeprefix('*.')}"

    @property
    def dns_value(self) -> str:
        """dns-01: its content."""
        return b64(self.digest)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key authorization."""
        return hashlib.sha256(self.key_authorization.encode()).digest()


class Solver(Protocol):
    """Shows the world what a task wants, until it is withdrawn. Both can be repeated harmlessly."""

    @property
    def kinds(self) -> frozenset[str]: ...

    def present(self, task: Task) -> None: ...

    def withdraw(self, task: Task) -> None: ...


Attest = Callable[[bytes], bytes]
"""From the key authorization to a CBOR attestation object of the key to be certified (hardware signs)."""


def task_for(challenge: Challenge, identifier: Identifier, account_key: SigningKey) -> Task:
    """The task of *challenge* (RFC 8555 §8.1)."""
    authorization = f"{challenge.token}.{thumbprint(account_key)}"
    return Task(challenge.type, identifier, challenge.token, authorization)


def alpn_certificate(task: Task, key: EllipticCurvePrivateKey, serial: int, now: Moment) -> x509.Certificate:
    """The self-signed certificate that a tls-alpn-01 validator wants (RFC 8737 §3).

    Critical acmeIdentifier with the digest, and exactly the one name as SAN.
    """
    value = task.identifier.value
    name: x509.GeneralName = (
        x509.IPAddress(ipaddress.ip_address(value)) if task.identifier.type == "ip" else x509.DNSName(value)
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    octets = b"\x04\x20" + task.digest
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(now.now - timedelta(days=1))
        .not_valid_after(now.now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, octets), critical=True)
        .sign(key, hashes.SHA256())
    )
