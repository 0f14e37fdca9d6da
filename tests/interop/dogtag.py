"""Dogtag CA and its own CMC tools, which ``scripts/peers-dogtag.sh`` installs, and CI does not."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    load_pem_private_key,
    pkcs12,
)

from holdfast.wire.model import Chain, SigningKey
from interop.cmc_peers import get
from interop.est_peers import free_port, run

SCRIPT = Path(__file__).parents[2] / "scripts" / "peers-dogtag.sh"
START_SECONDS = 240
PASSWORD = "Secret.123"
AGENT = "caadmin"


def installed() -> Path:
    """The root that Dogtag lives in; without it a skip, and a failure only where all was asked for."""
    done = subprocess.run([SCRIPT, "--where"], capture_output=True, text=True, check=True)
    root = Path(done.stdout.strip())
    if os.geteuid() != 0 or not (root / "holdfast/ready").exists():
        text = "Dogtag CA is missing: run `make peers-dogtag` as root"
        if os.environ.get("FULL") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return root


@dataclass(frozen=True)
class Dogtag:
    """A CA at ``port`` (HTTPS) and ``plain_port``, and the agent whom it trusts to ask for others."""

    root: Path
    port: int
    plain_port: int
    authority: x509.Certificate
    agent: tuple[Chain, SigningKey]

    def status_of(self, serial: int) -> str:
        """What the CA's own records say of a certificate: VALID, REVOKED, ..."""
        connection = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=60)
        connection.request("GET", f"/ca/rest/certs/0x{serial:x}", headers={"Accept": "application/xml"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text.partition("<Status>")[2].partition("</Status>")[0]


@contextmanager
def dogtag(directory: Path) -> Iterator[Dogtag]:
    """Dogtag CA as it was set up, on free ports, until the block ends; its log is in *directory*."""
    root = installed()
    authority = x509.load_pem_x509_certificate((root / "holdfast/ca.pem").read_bytes())
    agent = (root / "holdfast/admin.pem").read_bytes()
    key, certificate = load_pem_private_key(agent, None), x509.load_pem_x509_certificate(agent)
    ldap, plain, https, ajp, shutdown = (free_port() for _ in range(5))
    command = [str(SCRIPT.parent / "dogtag/serve.sh"), str(root)]
    command += [str(port) for port in (ldap, plain, https, ajp, shutdown)]
    log = directory / "dogtag.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            _await(process, https)
            yield Dogtag(root, https, plain, authority, ((certificate,), key))  # type: ignore[arg-type]
        finally:
            process.kill()  # unshare(1) takes no notice of SIGTERM; its death ends all that it started
            process.wait(30)
            print(log.read_text(errors="replace")[-4000:])  # noqa: T201


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    """Dogtag listens long before it can answer: ask until it says that it runs."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pause = threading.Event()
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            asking = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
            if "<Status>running</Status>" in get(asking, "/ca/admin/ca/getStatus"):
                return
        except (OSError, http.client.HTTPException):
            pass
        pause.wait(0.2)
    raise AssertionError(f"Dogtag did not start (exit status {process.poll()})")


@dataclass(frozen=True)
class Tools:
    """Dogtag's own programs, in a directory of their root that we share, with keys in an NSS database."""

    root: Path
    outside: Path

    @property
    def inside(self) -> Path:
        return Path("/") / self.outside.relative_to(self.root)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = [str(SCRIPT.parent / "dogtag/enter.sh"), str(self.root)]
        return run([*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.inside), *command])

    def take(self, name: str, chain: Chain, key: SigningKey) -> None:
        """Put an identity into the database, under the nickname *name*."""
        made = pkcs12.serialize_key_and_certificates(
            name.encode(),
            key,  # type: ignore[arg-type]
            chain[0],
            chain[1:],
            BestAvailableEncryption(PASSWORD.encode()),
        )
        (self.outside / f"{name}.p12").write_bytes(made)
        done = self.run("pk12util", "-i", f"{name}.p12", "-d", "nss", "-K", PASSWORD, "-W", PASSWORD)
        assert done.returncode == 0

    def trust(self, name: str, anchor: x509.Certificate) -> None:
        """Put a CA into the database."""
        (self.outside / "anchor.der").write_bytes(anchor.public_bytes(Encoding.DER))
        (self.outside / "password").write_text(PASSWORD)
        where = ["-d", "nss", "-f", "password"]
        done = self.run("certutil", "-A", *where, "-n", name, "-t", "CT,C,C", "-i", "anchor.der")
        assert done.returncode == 0

    def request(self, name: str, **settings: str) -> bytes:
        """What ``CMCRequest`` makes of *settings* (a dot in a name is written as two underscores)."""
        common = {"numRequests": "1", "tokenname": "internal", "dbdir": "nss", "password": PASSWORD}
        chosen = {"output": f"{name}.cmc", "format": "pkcs10", **common}
        chosen |= {key.replace("__", "."): value for key, value in settings.items()}
        lines = "".join(f"{key}={value}\n" for key, value in chosen.items())
        (self.outside / f"{name}.cfg").write_text(lines)
        self.run("CMCRequest", f"{name}.cfg")
        return (self.outside / f"{name}.cmc").read_bytes()

    def response(self, answer: bytes) -> str:
        """What ``CMCResponse`` says about *answer*."""
        (self.outside / "answer.rsp").write_bytes(answer)
        return self.run("CMCResponse", "-d", "nss", "-i", "answer.rsp").stdout


@contextmanager
def tools() -> Iterator[Tools]:
    root = installed()
    outside = root / "srv" / f"holdfast-{secrets.token_hex(8)}"
    shutil.copytree(root / "holdfast/nss", outside / "nss")
    try:
        yield Tools(root, outside)
    finally:
        shutil.rmtree(outside)
