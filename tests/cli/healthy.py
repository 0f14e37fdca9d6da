"""A device in perfect health: a software TPM with a maker's identity, a record, deployed files and a server.

It is made once and copied for each test, which then breaks one thing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.tpm import TpmStore
from holdfast.life.record import (
    Anchor,
    Credential,
    CredentialState,
    Deployment,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Provenance,
)
from holdfast_factory.authority import Product, init_factory
from holdfast_factory.device import make_device
from holdfast_factory.swtpm import Swtpm
from host.tls_server import Conversation, TlsServer, server_context
from host.tls_server import Identity as ServerIdentity

SERIAL = "GW-0001"
NAME = "ldevid"
REF = KeyRef("tpm2:blob:ldevid-1")
NOW = datetime.now(UTC).replace(microsecond=0)
BEGIN, END = NOW - timedelta(days=1), NOW + timedelta(days=365)
OWNER = pki.ca("Owner Root", not_before=BEGIN, not_after=END)
SERVER = pki.end_entity(
    "registrar",
    OWNER,
    san=pki.dns("localhost"),
    eku=[pki.SERVER_AUTH, pki.CMC_RA],
    not_before=BEGIN,
    not_after=END,
)
ANCHOR = Anchor(OWNER.certificate.public_bytes(Encoding.DER), Provenance.CACERTS, NOW)


@dataclass
class Healthy:
    """``home`` holds everything; ``tpm`` runs; ``server`` is the registrar."""

    home: Path
    tpm: Swtpm
    server: TlsServer

    @property
    def config(self) -> Path:
        return self.home / "holdfast.yaml"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def record(self) -> DeviceRecord:
        record = StateStore(self.state).load().record
        assert record is not None
        return record

    def remember(self, record: DeviceRecord) -> None:
        StateStore(self.state).commit(record)

    def hold(self, certificate: x509.Certificate, **more: object) -> None:
        """The record's identity has this certificate, for whatever key."""
        entry = self.record.identity(NAME)
        credential = replace(entry.credential, chain=(pki.der(certificate),), **more)  # type: ignore[arg-type]
        self.remember(self.record.with_identity(replace(entry, credential=credential)))

    def write_config(self, more: str = "") -> None:
        self.config.write_text(
            f"state-directory: {self.state}\n"
            f"registrars: ['localhost:{self.server.port}']\n"
            "manufacturer: {anchors: out/manufacturer-anchors.pem}\n"
            f"keys: {{tcti: '{self.tpm.tcti}'}}\n" + (more or "clock: trusted\n")
        )


def make(home: Path) -> None:
    """The state of TPM and disk, below *home*."""
    factory = init_factory(home / "factory", Product("masa.example:9443"), NOW)
    StateStore(home / "state").commit(DeviceRecord(BEGIN))
    with Swtpm(home / "tpm") as tpm:
        make_device(factory, tpm.tcti, SERIAL, home / "out", NOW)
        with TpmStore(tpm.tcti, home / "state" / "keys") as store:
            key = store.generate(REF, KeySpec())
            leaf = certificate_for(key.signer())
            pem = key.reference_pem()
    files = CredentialFiles(home / "state" / "identities", NAME)
    files.stage(1, (leaf,), (OWNER.certificate,), pem)
    files.promote(1)
    credential = Credential(CredentialState.ACTIVE, REF, (pki.der(leaf),), 1, since=NOW)
    entry = Identity(NAME, credential, deployment=Deployment(placed="all", complete=True))
    domain = Domain(DomainState.VOUCHED, "localhost:443", anchors=(ANCHOR,))
    StateStore(home / "state").commit(DeviceRecord(BEGIN, domain).with_identity(entry))


def certificate_for(
    key: object, *, begin: datetime = BEGIN, end: datetime = END, name: str = "gateway"
) -> x509.Certificate:
    made = pki.end_entity(
        name,
        OWNER,
        key=key,
        eku=[pki.CLIENT_AUTH],
        not_before=begin,
        not_after=end,  # type: ignore[arg-type]
    )
    return made.certificate


@contextmanager
def running(template: Path, home: Path, server: ServerIdentity | None = None) -> Iterator[Healthy]:
    """A copy of what :func:`make` left in *template*, with its TPM and its server running."""
    shutil.copytree(template, home, dirs_exist_ok=True, symlinks=True)
    identity = server or ServerIdentity((SERVER.certificate, OWNER.certificate), SERVER.key)  # type: ignore[arg-type]

    def listen(conversation: Conversation) -> None:
        conversation.request()

    with Swtpm(home / "tpm") as tpm, TlsServer(server_context(identity), listen) as serving:
        device = Healthy(home, tpm, serving)
        record = device.record
        domain = replace(record.domain, registrar=f"localhost:{serving.port}")
        device.remember(replace(record, domain=domain))
        device.write_config()
        yield device
