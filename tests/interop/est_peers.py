"""Where the independent EST peers live and how each one is started. `make peers` installs them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

import wire_pki as pki

SCRIPT = Path(__file__).parents[2] / "scripts" / "peers.sh"
START_SECONDS = 20
USER, PASSWORD = "estuser", "estpwd"  # what libest's estserver knows

LIBEST_CA = """\
[ca]
default_ca = issuing
[issuing]
dir = {directory}/ca
database = $dir/index.txt
new_certs_dir = $dir/new
certificate = {directory}/ca.pem
private_key = {directory}/ca-key.pem
serial = $dir/serial
default_days = 30
default_md = sha256
policy = names
copy_extensions = copyall
x509_extensions = device
unique_subject = no
email_in_dn = no
[names]
commonName = supplied
serialNumber = optional
[device]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def missing(what: str) -> None:
    """In CI a missing peer is a failure, elsewhere a skip."""
    text = f"{what} is missing: run `make peers` as root"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def peers_directory() -> Path:
    done = subprocess.run([SCRIPT, "--where"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@dataclass(frozen=True)
class Domain:
    """A CA and a server certificate for ``localhost``, valid around the real now: the peers have clocks."""

    authority: pki.Identity
    server: pki.Identity

    @classmethod
    def create(cls) -> Domain:
        begin = datetime.now(UTC) - timedelta(hours=1)
        end = begin + timedelta(days=60)
        authority = pki.ca(f"Peer CA {secrets.token_hex(4)}", not_before=begin, not_after=end)
        san = pki.dns("localhost")
        server = pki.end_entity(
            "localhost", authority, san=san, eku=[pki.SERVER_AUTH], not_before=begin, not_after=end
        )
        return cls(authority, server)

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return (self.authority.certificate,)

    def write(self, directory: Path) -> None:
        """``ca.pem``, ``ca-key.pem``, ``server.pem``, ``server-key.pem``."""
        (directory / "ca.pem").write_bytes(pki.pem(self.authority.certificate))
        (directory / "ca-key.pem").write_bytes(pki.key_pem(self.authority.key))
        (directory / "server.pem").write_bytes(pki.pem(*self.server.chain))
        (directory / "server-key.pem").write_bytes(pki.key_pem(self.server.key))


@dataclass(frozen=True)
class DebianRoot:
    """A directory inside the Debian 13 root, shared with the programs that run there."""

    root: Path
    outside: Path

    @property
    def inside(self) -> Path:
        """The same directory as the programs in the root name it."""
        return Path("/") / self.outside.relative_to(self.root)

    def command(self, *arguments: str, environment: Mapping[str, str]) -> list[str]:
        settings = [f"{name}={value}" for name, value in environment.items()]
        enter = ["chroot", str(self.root), "env", "-i", "PATH=/usr/bin:/bin", *settings]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.inside), *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, output and errors in ``stdout``."""
        return run(self.command(*arguments, environment=environment))


@contextmanager
def debian_root() -> Iterator[DebianRoot]:
    root = peers_directory() / "trixie"
    if os.geteuid() != 0 or not (root / "usr/bin/estserver").exists():
        missing("the Debian 13 root with libest and strongSwan")
    outside = root / "tmp" / f"holdfast-{secrets.token_hex(8)}"
    outside.mkdir()
    try:
        yield DebianRoot(root, outside)
    finally:
        shutil.rmtree(outside)


def globalsign(program: str) -> str:
    path = peers_directory() / "bin" / program
    if not path.exists():
        missing(f"GlobalSign's {program}")
    return str(path)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )
    print(done.stdout)  # noqa: T201 - pytest shows it with a failure
    return done


@contextmanager
def libest_server(place: DebianRoot, domain: Domain, *options: str) -> Iterator[int]:
    """libest's ``estserver`` with *options*; yields its port. It listens on every address of the machine."""
    domain.write(place.outside)
    authority = place.outside / "ca"
    (authority / "new").mkdir(parents=True, exist_ok=True)
    (authority / "index.txt").write_text("")
    (authority / "serial").write_text("1000\n")
    (place.outside / "ca.cnf").write_text(LIBEST_CA.format(directory=place.inside))
    environment = {
        "EST_TRUSTED_CERTS": "ca.pem",
        "EST_CACERTS_RESP": "ca.pem",
        "EST_OPENSSL_CACONFIG": "ca.cnf",
    }
    port = free_port()
    identity = ["-c", "server.pem", "-k", "server-key.pem", "-r", "estrealm"]
    command = place.command("estserver", *identity, "-v", "-p", str(port), *options, environment=environment)
    with serving(command, port, place.outside / "estserver.log"):
        yield port


@contextmanager
def globalsign_server(directory: Path, domain: Domain) -> Iterator[int]:
    """GlobalSign's ``estserver`` on the loopback address; yields its port."""
    domain.write(directory)
    port = free_port()
    settings = {
        "mock_ca": {"certificates": str(directory / "ca.pem"), "private_key": str(directory / "ca-key.pem")},
        "tls": {
            "listen_address": f"localhost:{port}",
            "certificates": str(directory / "server.pem"),
            "private_key": str(directory / "server-key.pem"),
            "client_cas": [str(directory / "ca.pem")],
        },
        "allowed_hosts": ["localhost"],
        "rate_limit": 1000,
        "timeout": 30,
    }
    (directory / "server.json").write_text(json.dumps(settings))
    command = [globalsign("estserver"), "-config", str(directory / "server.json")]
    with serving(command, port, directory / "estserver.log"):
        yield port


def free_port() -> int:
    """These servers cannot tell which port they were given, so one that is free now is chosen for them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends; its log is printed, for pytest to show with a failure."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            await_listener(process, port)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            print(log.read_text(errors="replace"))  # noqa: T201


def await_listener(process: subprocess.Popen[bytes], port: int) -> None:
    """The peers announce nothing that could be waited for, so this knocks until they open."""
    pause = threading.Event()
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            pause.wait(0.02)
        else:
            return
    raise AssertionError(f"the server did not start (exit status {process.poll()})")
