"""What the device is there for: a request to its owner's application, by mutual TLS with the LDevID."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from holdfast.host.clock import believed
from holdfast.host.config import load
from holdfast.host.store import StateStore
from holdfast.host.transport import Anchored, Channel, TlsTransport
from holdfast.keys.open import open_store
from holdfast.wire.chain import Rule, validate
from holdfast.wire.model import Chain, HttpRequest
from holdfast.worker.assemble import clock_of, key_settings
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.links import Endpoint


def hello(config: Path, application: str) -> str:
    """What the application answers to ``GET /``, having seen our certificate."""
    settings = load(config)
    record = StateStore(settings.state_directory).load().record
    if record is None:
        raise LookupError("the device has no record")
    credential = record.identity("ldevid").credential
    endpoint = Endpoint.parse(application)
    now = believed(clock_of(settings), record.proven, record.time_floor)
    anchors = certificates_of(record.domain.anchors)

    def check(chain: Chain) -> None:
        intermediates: tuple[x509.Certificate, ...] = load_chain(record.domain.intermediates)
        validate((*chain, *intermediates), anchors, now, Rule.tls_server(endpoint.host, allow_cmcra=False))

    keys = open_store(key_settings(settings))
    try:
        client = (load_chain(credential.chain), keys.load(credential.key).signer())
        channel = Channel(endpoint.host, endpoint.port, Anchored(check), client)
        with TlsTransport().open(channel) as link:
            return link.send(HttpRequest("GET", "/")).body.decode().strip()
    finally:
        keys.close()
