"""A throw-away CA, certificates for any key, and a TLS server in a thread: what the key tests need."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.keys.hardware import HardwareEcKey, HardwareRsaKey

NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime.now(UTC) + timedelta(days=1)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def certificate(subject, public, issuer, issuer_key, *, ca=False, serial=None) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


class Pki:
    """Root -> intermediate -> leaves."""

    def __init__(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = certificate("root", self.root_key.public_key(), "root", self.root_key, ca=True)
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.middle = certificate("middle", self.middle_key.public_key(), "root", self.root_key, ca=True)
        self.server_key = ec.generate_private_key(ec.SECP256R1())
        self.server_chain = self.chain(self.server_key.public_key(), "server")

    def chain(self, public, subject="device"):
        return (certificate(subject, public, "middle", self.middle_key), self.middle)

    def server_context(self, directory: Path, version: ssl.TLSVersion, *, client_auth=True) -> ssl.SSLContext:
        """A plain stdlib server: it knows nothing of our key code."""
        pem = serialization.Encoding.PEM
        chain, key, root = directory / "s.pem", directory / "s.key", directory / "root.pem"
        chain.write_bytes(b"".join(c.public_bytes(pem) for c in self.server_chain))
        key.write_bytes(
            self.server_key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        root.write_bytes(self.root.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(chain, key)
        if client_auth:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(root)
        return context

    def client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(
            cadata=self.root.public_bytes(serialization.Encoding.PEM).decode("ascii")
        )
        return context


@dataclass
class Server:
    port: int
    peers: list[bytes] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@contextmanager
def tls_server(context: ssl.SSLContext):
    """Serves connections one after another: shakes hands, answers ``ok``, records the client's DER."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1])
    stop = threading.Event()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            if stop.is_set():
                connection.close()
                return
            connection.settimeout(20)
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    server.peers.append(tls.getpeercert(True) or b"")
                    tls.sendall(b"ok")
            except OSError as error:
                server.errors.append(error)
            finally:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        socket.create_connection(("127.0.0.1", server.port)).close()
        thread.join(30)
        listener.close()


def handshake(context: ssl.SSLContext, port: int) -> str:
    """Connect, read ``ok`` (TLS 1.3 tells a refused client certificate only then); the TLS version."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        version = tls.version()
        if tls.recv(2) != b"ok":
            raise ConnectionError("the server hung up")
        return version


class SoftEcSigner:
    """An EcSigner over a software key: the hardware path without hardware."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key
        self.calls = 0
        self.fault: BaseException | None = None

    def sign_digest(self, digest: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        self.calls += 1
        if self.fault:
            raise self.fault
        algorithm = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[len(digest)]
        return self.key.sign(digest, ec.ECDSA(Prehashed(algorithm)))


class SoftRsaSigner:
    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key = key
        self.numbers = key.private_numbers()
        self.calls: list[str] = []
        self.fault: BaseException | None = None

    def sign_pkcs1(self, algorithm: str, digest: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        self.calls.append(f"pkcs1 {algorithm}")
        if self.fault:
            raise self.fault
        algorithms = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
        return self.key.sign(digest, PKCS1v15(), Prehashed(algorithms[algorithm]))

    def rsa_raw(self, block: bytes) -> bytes:
        self.calls.append("raw")
        if self.fault:
            raise self.fault
        n = self.numbers.public_numbers.n
        return pow(int.from_bytes(block, "big"), self.numbers.d, n).to_bytes(len(block), "big")

    def rsa_decrypt(self, ciphertext: bytes, oaep: str | None) -> bytes:
        raise NotImplementedError


def soft_hardware(key):
    """*key* behind the hardware classes."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return HardwareEcKey(SoftEcSigner(key), key.public_key())
    return HardwareRsaKey(SoftRsaSigner(key), key.public_key())
