"""The independent CMC peers: a server and a client made of BouncyCastle's classes (Dogtag: dogtag.py)."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    pkcs12,
)

import wire_pki as pki
from holdfast.wire.model import SigningKey
from interop.est_peers import free_port, missing, peers_directory, run, serving

REFERENCE, SECRET = "gateway-7", "nine bean rows and a hive"
TLS_SECRET = b"tls"


@dataclass(frozen=True)
class Realm:
    """A CA, its CMC server, and a device with an identity of its maker. The peers have clocks."""

    authority: pki.Identity
    server: pki.Identity
    maker: pki.Identity
    device: pki.Identity

    @classmethod
    def create(cls) -> Realm:
        begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        end = begin + timedelta(days=60)
        authority = pki.ca("CMC Peer CA", not_before=begin, not_after=end)
        use = [pki.CMC_RA, pki.SERVER_AUTH]
        server = pki.end_entity(
            "CMC Peer RA", authority, san=pki.dns("localhost"), eku=use, not_before=begin, not_after=end
        )
        maker = pki.ca("Maker CA", not_before=begin, not_after=end)
        device = pki.end_entity("device SN-17", maker, not_before=begin, not_after=end)
        return cls(authority, server, maker, device)

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return (self.authority.certificate,)

    def write(self, directory: Path) -> None:
        """All that :file:`cmc_bc/CmcServer.java` and :file:`cmc_bc/CmcClient.java` read."""
        write_identity(directory, "ca", (self.authority.certificate,), self.authority.key)
        write_identity(directory, "ra", (self.server.certificate,), self.server.key)
        write_identity(directory, "device", self.device.chain, self.device.key)
        (directory / "anchors.pem").write_bytes(pki.pem(self.authority.certificate))
        (directory / "issuer.pem").write_bytes(pki.pem(self.authority.certificate))
        (directory / "device-anchors.pem").write_bytes(pki.pem(self.maker.certificate))
        (directory / "secrets").write_text(f"{REFERENCE} {SECRET}\n")
        store = pkcs12.serialize_key_and_certificates(
            b"tls",
            self.server.key,  # type: ignore[arg-type]
            self.server.certificate,
            [self.authority.certificate],
            BestAvailableEncryption(TLS_SECRET),
        )
        (directory / "tls.p12").write_bytes(store)


def write_identity(directory: Path, name: str, chain: tuple[x509.Certificate, ...], key: SigningKey) -> None:
    """``NAME.pem`` and ``NAME.key``, PKCS#8 in DER."""
    (directory / f"{name}.pem").write_bytes(pki.pem(*chain))
    encoded = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[union-attr]
    (directory / f"{name}.key").write_bytes(encoded)


def java(program: str, *arguments: str) -> list[str]:
    place = peers_directory() / "cmc-bc"
    if shutil.which("java") is None or not (place / f"{program}.class").exists():
        missing(f"BouncyCastle's CMC ({program})")
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
    return ["java", *quick, "-cp", f"{place}:{place}/lib/*", program, *arguments]


@dataclass(frozen=True)
class BouncyCastleServer:
    """The server at ``port`` of 127.0.0.1."""

    port: int
    tls: bool = False

    def url(self, path: str) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}{path}"

    def log(self) -> list[str]:
        """What the server did so far."""
        assert not self.tls
        return get(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20), "/log").split("\n")


def get(connection: http.client.HTTPConnection, path: str) -> str:
    """The text at *path*. Raises OSError and HTTPException."""
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()


@contextmanager
def bouncy_castle_server(directory: Path, *, tls: bool = False) -> Iterator[BouncyCastleServer]:
    """``CmcServer`` on what :meth:`Realm.write` wrote into *directory*."""
    port = free_port()
    command = java("CmcServer", str(directory), str(port), *(["tls"] if tls else []))
    with serving(command, port, directory / "bc-server.log"):
        yield BouncyCastleServer(port, tls)


@dataclass(frozen=True)
class Said:
    """How the BouncyCastle client ended: 0 success, 1 refused by the server, 2 the answer itself refused."""

    status: int
    lines: list[str]

    @property
    def outcome(self) -> str:
        return self.lines[-1]

    def word(self, label: str) -> str:
        """The word after *label* in the first line that begins with it."""
        return next(line.split()[1] for line in self.lines if line.startswith(f"{label} "))


def bouncy_castle_client(directory: Path, url: str, **settings: str) -> Said:
    done = run(java("CmcClient", str(directory), url, *(f"{k}={v}" for k, v in settings.items())))
    return Said(done.returncode, done.stdout.strip().split("\n"))


def issued(directory: Path) -> tuple[x509.Certificate, SigningKey]:
    """What the BouncyCastle client took home."""
    certificate = x509.load_pem_x509_certificate((directory / "issued.pem").read_bytes())
    key = load_der_private_key((directory / "issued.key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    return certificate, key  # type: ignore[return-value]
