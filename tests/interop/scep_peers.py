"""The independent SCEP servers, how each one is started, and a way to ask them over plain HTTP."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.tls import Channel, Plain
from holdfast.host.transport import TlsTransport
from holdfast.wire import csr
from holdfast.wire.model import Chain, ClockState, EnrollmentRequest, Exchange, Moment, Purpose, SigningKey
from holdfast.wire.scep.authority import Trust, fingerprint
from holdfast.wire.scep.client import ScepProtocol
from holdfast.wire.scep.http import Site
from interop.est_peers import START_SECONDS, await_listener, free_port, missing, peers_directory, run, serving

CHALLENGE = "one-time-secret"
CLONE_NEWNET = 0x40000000


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    del number  # which of several
    return rsa.generate_private_key(65537, 2048)


def now() -> Moment:
    moment = datetime.now(UTC)
    return Moment(moment, moment - timedelta(days=1), ClockState.TRUSTED)


@dataclass
class Peer:
    """A running server. ``get``: pretend that it does not take POST, so that the client uses GET.
    ``always_challenged``: it wants a challenge in a renewal, too."""

    port: int
    path: str
    ca: x509.Certificate
    get: bool = False
    always_challenged: bool = False
    label: str = ""
    run: Callable[[Callable[[], Any]], Any] = field(default=lambda work: work())
    methods: list[str] = field(default_factory=list)

    def protocol(self, **options: Any) -> ScepProtocol:
        trust = Trust(fingerprints=frozenset({fingerprint(self.ca)}))
        return ScepProtocol(trust, Site(self.path), **options)

    def request(
        self,
        key: SigningKey,
        *,
        current: tuple[Chain, SigningKey] | None = None,
        challenge: str | None = None,
        **options: Any,
    ) -> EnrollmentRequest:
        subject = pki.name("gateway-7")
        return EnrollmentRequest(
            Purpose.INITIAL if current is None else Purpose.REKEY,
            csr.build(key, subject, san=_names(current), challenge=challenge),
            key,
            subject,
            (self.ca,),
            secrets.token_bytes(16),
            secrets.token_bytes,
            current=current,
            **options,
        )

    def ask(self, exchange: Exchange[Any]) -> Any:
        """Carry *exchange* over real connections of the agent's own transport."""

        def connect() -> Any:
            return TlsTransport().open(Channel("127.0.0.1", self.port, Plain()))

        def work() -> Any:
            with connect() as link:
                return drive(self._seen(exchange), link, connect)

        return self.run(work)

    def _seen(self, exchange: Exchange[Any]) -> Exchange[Any]:
        request = next(exchange)
        while True:
            if "PKIOperation" in request.target:
                self.methods.append(request.method)
            response = yield request
            if self.get and "GetCACaps" in request.target:
                words = response.body.replace(b"POSTPKIOperation", b"").replace(b"SCEPStandard", b"")
                response = type(response)(response.status, response.headers, words)
            try:
                request = exchange.send(response)
            except StopIteration as stop:
                return stop.value


def _names(current: tuple[Chain, SigningKey] | None) -> tuple[x509.GeneralName, ...]:
    """A renewal repeats the names of its certificate: a CA may have added some."""
    if current is None:
        return ()
    try:
        return tuple(current[0][0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def program(name: str) -> str:
    path = peers_directory() / "bin" / name
    if not path.exists():
        missing(f"the SCEP peer {name}")
    return str(path)


@contextmanager
def micromdm(directory: Path) -> Iterator[Peer]:
    """micromdm's ``scepserver`` on the loopback address, with one static challenge."""
    server, port = program("scepserver"), free_port()
    ca = _micromdm_ca(server, directory)
    address = ["-http-addr", f"127.0.0.1:{port}"]
    with serving(_micromdm(server, directory, address), port, directory / "scepserver.log"):
        yield Peer(port, "/scep", ca, always_challenged=True)


@contextmanager
def micromdm_des(directory: Path) -> Iterator[Peer]:
    """Its older version, which answers with single DES and binds every address: in a network namespace."""
    if os.geteuid() != 0:
        missing("root, for a network namespace of the old scepserver,")
    server, port = program("scepserver-des"), 8080
    ca = _micromdm_ca(server, directory)
    command = _micromdm(server, directory, ["-port", str(port)])
    with namespaced(command, port, directory / "scepserver-des.log") as run:
        yield Peer(port, "/scep", ca, run=run)


def _micromdm_ca(server: str, directory: Path) -> x509.Certificate:
    depot = directory / "depot"
    assert run([server, "ca", "-init", "-keySize", "2048", "-depot", str(depot)]).returncode == 0
    return x509.load_pem_x509_certificate((depot / "ca.pem").read_bytes())


def _micromdm(server: str, directory: Path, address: list[str]) -> list[str]:
    depot = ["-depot", str(directory / "depot"), "-challenge", CHALLENGE, "-allowrenew", "0"]
    return [server, *depot, *address]


@contextmanager
def step_ca(directory: Path) -> Iterator[Peer]:
    """Smallstep's ``step-ca`` with a SCEP provisioner: AES-256, plain HTTP on the loopback address."""
    server, port, secure = program("step-ca"), free_port(), free_port()
    begin = datetime.now(UTC) - timedelta(hours=1)
    life = {"not_before": begin, "not_after": begin + timedelta(days=60)}
    root = pki.ca("Step Root", kind="rsa2048", **life)  # type: ignore[arg-type]
    issuing = pki.ca("Step Issuing", root, key=rsa_key(9), path_length=0, **life)  # type: ignore[arg-type]
    (directory / "root.pem").write_bytes(pki.pem(root.certificate))
    (directory / "issuing.pem").write_bytes(pki.pem(issuing.certificate))
    key = issuing.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (directory / "issuing-key.pem").write_bytes(key)
    provisioner = {
        "type": "SCEP",
        "name": "gateways",
        "challenge": CHALLENGE,
        "minimumPublicKeyLength": 2048,
        "includeRoot": True,
        "encryptionAlgorithmIdentifier": 2,
    }
    settings = {
        "root": str(directory / "root.pem"),
        "crt": str(directory / "issuing.pem"),
        "key": str(directory / "issuing-key.pem"),
        "address": f"127.0.0.1:{secure}",
        "insecureAddress": f"127.0.0.1:{port}",
        "dnsNames": ["localhost"],
        "db": {"type": "bbolt", "dataSource": str(directory / "db")},
        "authority": {"provisioners": [provisioner]},
    }
    (directory / "ca.json").write_text(json.dumps(settings))
    command = [server, str(directory / "ca.json")]
    with serving(command, port, directory / "step-ca.log"):
        yield Peer(port, "/scep/gateways", root.certificate, always_challenged=True)


@contextmanager
def namespaced(command: list[str], port: int, log: Path) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Run a server in a network of its own; yields what runs a function there, in a thread that joined it."""
    with ThreadPoolExecutor(max_workers=1) as inside, log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        def run(work: Callable[[], Any]) -> Any:
            return inside.submit(work).result(timeout=60)

        try:
            run(lambda: _join_network(process))
            run(lambda: await_listener(process, port))
            yield run
        finally:
            process.kill()
            process.wait(10)
            print(log.read_text(errors="replace"))  # noqa: T201 - pytest shows it with a failure


def _join_network(process: subprocess.Popen[bytes]) -> None:
    """Move this thread into the network of *process*, once that has one of its own."""
    theirs, ours = Path(f"/proc/{process.pid}/ns/net"), Path("/proc/self/ns/net").readlink()
    pause, deadline = threading.Event(), time.monotonic() + START_SECONDS
    while theirs.readlink() == ours:
        if time.monotonic() > deadline:
            raise AssertionError("the server has no network of its own")
        pause.wait(0.01)
    descriptor = os.open(theirs, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
