"""How the independent ACME servers are started. ``make peers`` installs them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

import wire_pki as pki
from interop.est_peers import Domain, free_port, missing, peers_directory, serving


@dataclass(frozen=True)
class Pebble:
    """Let's Encrypt's test server. ``http_port`` is where it looks for http-01, ``tls_port`` for
    tls-alpn-01."""

    port: int
    management: int
    http_port: int
    tls_port: int
    anchors: tuple[x509.Certificate, ...]


@contextmanager
def pebble(
    directory: Path,
    domain: Domain,
    *,
    environment: Mapping[str, str] | None = None,
    eab: Mapping[str, str] | None = None,
) -> Iterator[Pebble]:
    """``pebble`` on loopback, which refuses one nonce in five unless told otherwise."""
    domain.write(directory)
    port, management, http_port, tls_port = (free_port() for _ in range(4))
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(directory / "server.pem"),
        "privateKey": str(directory / "server-key.pem"),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": eab is not None,
        "externalAccountMACKeys": dict(eab or {}),
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {
            "default": {"description": "the usual", "validityPeriod": 7776000},
            "short": {"description": "six days", "validityPeriod": 518400},
        },
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": settings}))
    program = peers_directory() / "bin" / "pebble"
    if not program.exists():
        missing("pebble")
    knobs = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", **(environment or {})}
    command = [
        *(f"{k}={v}" for k, v in knobs.items()),
        str(program),
        "-config",
        str(directory / "pebble.json"),
    ]
    log = directory / "pebble.log"
    with serving(["env", *command, *_resolver()], port, log):
        yield Pebble(port, management, http_port, tls_port, domain.anchors)


def _resolver() -> list[str]:
    server = os.environ.get("HOLDFAST_TEST_DNS")
    return ["-dnsserver", server] if server else []


def pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    return pki.pem(*certificates)
