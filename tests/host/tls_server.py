"""A TLS server that does exactly what a test tells it, and certificates for it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_START = datetime.now(UTC) - timedelta(days=1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Identity:
    """A certificate chain, leaf first, and its key."""

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.chain[0].public_bytes(serialization.Encoding.DER)

    def pem(self) -> bytes:
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in self.chain)


class Authority:
    """A CA of one certificate."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(_name(name), self.key.public_key(), _name(name), ca=True)

    def issue(self, name: str, hosts: Iterable[str] = ()) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(_name(name), key.public_key(), self.certificate.subject, ca=False, hosts=hosts)
        return Identity((leaf, self.certificate), key)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        issuer: x509.Name,
        *,
        ca: bool,
        hosts: Iterable[str] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_START)
            .not_valid_after(_START + timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        names = [_general_name(host) for host in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def server_context(identity: Identity, client_ca: x509.Certificate | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory) / "server.pem"
        pem.write_bytes(identity.pem())
        context.load_cert_chain(pem)
    if client_ca is not None:
        context.load_verify_locations(cadata=client_ca.public_bytes(serialization.Encoding.PEM).decode())
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Conversation:
    """The server's end of one connection."""

    def __init__(self, sock: ssl.SSLSocket | socket.socket, sni: str | None) -> None:
        self.sock = sock
        self.sni = sni
        tls = isinstance(sock, ssl.SSLSocket)
        self.client_certificate = sock.getpeercert(binary_form=True) if tls else None
        self.requests: list[bytes] = []
        self.closed_by_peer = threading.Event()

    def request(self) -> bytes:
        """Read one request; ``b""`` when the client closed the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._recv()
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += self._recv()
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def answer(self, *pieces: bytes) -> None:
        """Read one request, then write *pieces*, one TLS record each."""
        if self.request():
            for piece in pieces:
                self.sock.sendall(piece)

    def say_goodbye(self) -> None:
        """Send close_notify."""
        with suppress(OSError):
            self.sock.unwrap()

    def _recv(self) -> bytes:
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.closed_by_peer.set()
        return data


class TlsServer:
    """Runs *script* on each connection, in threads, on any free port; without TLS if no context.

    ``conversations`` are the connections whose handshake succeeded, ``failures`` the handshakes that did not.
    After the script the connection is cut without close_notify; a script that wants one says goodbye itself.
    """

    def __init__(self, context: ssl.SSLContext | None, script: Callable[[Conversation], None]) -> None:
        self._context = context
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._snis: dict[int, str | None] = {}
        if context is not None:
            context.sni_callback = lambda sock, name, _: self._snis.__setitem__(id(sock), name)
        self.accepted = 0
        self.conversations: list[Conversation] = []
        self.failures: list[OSError] = []
        self.handshaken = threading.Event()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._start(lambda sock=sock: self._serve(sock))

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        if self._context is None:
            with sock, suppress(OSError):
                self.conversations.append(Conversation(sock, None))
                self._script(self.conversations[-1])
            return
        try:
            tls = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with tls:
                try:
                    tls.do_handshake()
                except OSError as error:
                    self.failures.append(error)
                    return
                finally:
                    self.handshaken.set()
                conversation = Conversation(tls, self._snis.get(id(tls)))
                self.conversations.append(conversation)
                with suppress(OSError):
                    self._script(conversation)
        finally:
            sock.close()
