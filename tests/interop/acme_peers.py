"""How the independent ACME servers are started. ``make peers`` installs them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from interop.est_peers import Domain, free_port, missing, peers_directory, run, serving

ZONE = "holdfast.test"
TSIG_NAME, TSIG_SECRET = "gateway-key", "c2VjcmV0LW9mLXRoZS10ZXN0LW9ubHktMzItYnl0ZXM="


@dataclass(frozen=True)
class Pebble:
    """Let's Encrypt's test server: ``http_port`` and ``tls_port`` are where it looks for challenges."""

    port: int
    management: int
    http_port: int
    tls_port: int

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """What it issues leads here; it is made anew at each start."""
        return (self.root(0),)

    def root(self, number: int) -> x509.Certificate:
        """The root of its chain *number*. Read over a loopback address."""
        url = f"https://127.0.0.1:{self.management}/roots/{number}"
        done = subprocess.run(
            ["curl", "-sSk", "--noproxy", "*", url], capture_output=True, check=True, timeout=30
        )
        return x509.load_pem_x509_certificate(done.stdout)


@contextmanager
def pebble(
    directory: Path,
    domain: Domain,
    *,
    external: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    resolver: str | None = None,
) -> Iterator[Pebble]:
    """``pebble`` on loopback. It refuses one good nonce in five, and uses authorizations again at random."""
    program = peers_directory() / "bin" / "pebble"
    if not program.exists():
        missing("pebble")
    domain.write(directory)
    found = Pebble(*(free_port() for _ in range(4)))
    settings = {
        "listenAddress": f"127.0.0.1:{found.port}",
        "managementListenAddress": f"127.0.0.1:{found.management}",
        "certificate": str(directory / "server.pem"),
        "privateKey": str(directory / "server-key.pem"),
        "httpPort": found.http_port,
        "tlsPort": found.tls_port,
        "externalAccountBindingRequired": external is not None,
        "externalAccountMACKeys": dict(external or {}),
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {
            "default": {"description": "the usual", "validityPeriod": 7776000},
            "short": {"description": "six days", "validityPeriod": 518400},
        },
    }
    config = directory / "pebble.json"
    config.write_text(json.dumps({"pebble": settings}))
    knobs = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", **(environment or {})}
    command = ["env", *(f"{k}={v}" for k, v in knobs.items()), str(program), "-config", str(config)]
    command += ["-dnsserver", resolver] if resolver else []
    with serving(command, found.port, directory / "pebble.log"):
        yield found


@contextmanager
def name_server(directory: Path) -> Iterator[int]:
    """BIND's ``named`` on loopback with one zone that takes updates under a TSIG key; yields its port."""
    program = shutil.which("named") or "/usr/sbin/named"
    if not Path(program).exists():
        missing("named (Debian: bind9)")
    port = free_port()
    home = directory / "named"
    home.mkdir()
    (home / "zone").write_text(
        f"$TTL 60\n@ SOA ns.{ZONE}. root.{ZONE}. 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n"
        "gateway A 127.0.0.1\n* A 127.0.0.1\n"
    )
    (home / "named.conf").write_text(
        f'options {{ directory "{home}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};'
        f' pid-file "{home}/pid"; session-keyfile "{home}/session"; recursion no; allow-query {{ any; }};'
        f' managed-keys-directory "{home}"; dnssec-validation no; }};\n'
        f'key "{TSIG_NAME}" {{ algorithm hmac-sha256; secret "{TSIG_SECRET}"; }};\n'
        f'zone "{ZONE}" {{ type primary; file "{home}/zone"; allow-update {{ key "{TSIG_NAME}"; }}; }};\n'
        "controls { };\n"
    )
    command = [program, "-g", "-c", str(home / "named.conf"), "-u", "root", "-n", "1"]
    with serving(command, port, home / "log"):
        yield port


@dataclass(frozen=True)
class StepCa:
    """Smallstep's CA with an ACME provisioner for device-attest-01."""

    port: int
    roots: tuple[x509.Certificate, ...]
    directory: str = "/acme/devices/directory"


@contextmanager
def step_ca(
    directory: Path, domain: Domain, attestation_roots: Sequence[x509.Certificate]
) -> Iterator[StepCa]:
    """``step-ca`` on loopback: its root and intermediate are *domain*'s CA, its database a file."""
    program = peers_directory() / "bin" / "step-ca"
    if not program.exists():
        missing("step-ca")
    domain.write(directory)
    port = free_port()
    (directory / "attestation.pem").write_bytes(_pem(attestation_roots))
    roots = subprocess.run(
        ["base64", "-w0", str(directory / "attestation.pem")], capture_output=True, text=True, check=True
    ).stdout
    config = {
        "root": str(directory / "ca.pem"),
        "crt": str(directory / "ca.pem"),
        "key": str(directory / "ca-key.pem"),
        "address": f"127.0.0.1:{port}",
        "dnsNames": ["localhost", "127.0.0.1"],
        "db": {"type": "bbolt", "dataSource": str(directory / "db")},
        "logger": {"format": "text"},
        "authority": {
            "claims": {"disableRenewal": False},
            "provisioners": [
                {
                    "type": "ACME",
                    "name": "devices",
                    "challenges": ["device-attest-01"],
                    "attestationFormats": ["tpm"],
                    "attestationRoots": roots,
                }
            ],
        },
    }
    (directory / "ca.json").write_text(json.dumps(config))
    with serving([str(program), str(directory / "ca.json")], port, directory / "step-ca.log"):
        yield StepCa(port, domain.anchors)


def version(program: str, *arguments: str) -> str:
    """The first line that *program* prints of itself."""
    return run([program, *arguments]).stdout.splitlines()[0]


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
