"""The attestation CA as an HTTPS service, with its keys in the factory's directory."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from aiohttp import web
from cryptography import x509

from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain, HttpRequest
from holdfast.wire.tpm import akca
from holdfast_factory import ledger
from holdfast_factory.attestation_ca import AttestationCa, Policy
from holdfast_factory.authority import Authority, Factory, load_authority, make_authority, make_server

NAME: Final = "attestation-ca"
SERVER: Final = "attestation-server"
_AUTHORITY_LIFE: Final = timedelta(days=3650)
_SERVER_LIFE: Final = timedelta(days=825)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that listens. ``url`` is its origin; files are PEM: whom an ACME server trusts to believe the
    certificates, and whom a device trusts to talk to this server."""

    url: str
    anchors: Path
    server_anchors: Path


def makers(paths: tuple[Path, ...]) -> Chain:
    """Roots of TPM makers from PEM files. Raises ConfigError."""
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            found += x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError("akca.makers", f"{path}: {error}") from error
    return tuple(found)


def known_devices(factory: Factory) -> Mapping[str, str]:
    """Serial number by SHA-256 of the EK certificate, of every device that the factory made."""
    return {e.ek_certificate: e.serial for e in ledger.entries(factory.directory) if e.ek_certificate}


def open_authority(factory: Factory, now: datetime) -> Authority:
    """The attestation CA's own key and certificate below the factory's root, made at the first use."""
    if not (factory.directory / f"{NAME}.pem").exists():
        make_authority(factory, NAME, "Attestation CA", now, now + _AUTHORITY_LIFE)
    return load_authority(factory.directory, NAME)


def build(factory: Factory, trusted: Chain, *, listed: bool, now: datetime) -> AttestationCa:
    """The CA for TPMs whose makers are *trusted*. *listed*: only for devices that the factory made, under
    their serial numbers; else for every such TPM, under its endorsement key's fingerprint."""
    devices = known_devices(factory) if listed else None
    authority = open_authority(factory, now)
    return AttestationCa(authority, Policy(trusted, devices), lambda: datetime.now(UTC), secrets.token_bytes)


@contextlib.asynccontextmanager
async def serving(ca: AttestationCa, factory: Factory, host: str, port: int) -> AsyncIterator[Service]:
    """Listen until the block ends. *port* 0 lets the system choose."""
    files = make_server(factory, SERVER, host, datetime.now(UTC).replace(microsecond=0), _SERVER_LIFE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.chain, files.key)

    async def handle(request: web.Request) -> web.Response:
        message = HttpRequest(
            request.method, request.raw_path, tuple(request.headers.items()), await request.read()
        )
        # Opening secrets takes a curve or RSA operation: others need not wait for it.
        answer = await asyncio.to_thread(ca.handle, message)
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    app = web.Application(client_max_size=akca.LIMIT)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
        bound = runner.addresses[0][1]
        anchors = factory.directory / f"{NAME}.pem"
        yield Service(f"https://{host}:{bound}", anchors, factory.directory / "manufacturer-root.pem")
    finally:
        await runner.cleanup()
