"""A client of the gateway's broker: mutual TLS on this host, and MQTT's first two packets."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.model import KeyAlgorithm
from holdfast_sim import ca
from holdfast_sim.ca import Validity
from holdfast_sim.tls import pem
from machine.owner import Town

CONNECT = bytes.fromhex("101000044d5154540402003c0004") + b"host"  # MQTT 3.1.1, clean session
CONNACK = bytes.fromhex("20020000")
SECONDS = 60


@dataclass(frozen=True)
class Greeting:
    """Who answered, and what."""

    server: x509.Certificate
    answer: bytes


def greet(town: Town, port: int, place: Path, *, credential: bool = True) -> Greeting:
    """Connect as a client of the owner's domain, or as nobody. Raises OSError if not let in."""
    domain = town.running.world.domain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # an LDevID names a device
    context.load_verify_locations(cadata="".join(map(pem, domain.anchors)))
    if credential:
        context.load_cert_chain(_client(town, place))
    with (
        socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
        context.wrap_socket(plain) as channel,
    ):
        channel.sendall(CONNECT)
        answer = channel.recv(len(CONNACK))
        server = x509.load_der_x509_certificate(channel.getpeercert(binary_form=True) or b"")
    return Greeting(server, answer)


def _client(town: Town, place: Path) -> Path:
    world = town.running.world
    made = world.domain.issuing.credential_for(
        ca.name("A client of the owner"),
        Validity.starting(world.now(), None),
        ca.end_entity(ExtendedKeyUsageOID.CLIENT_AUTH),
        KeyAlgorithm.P256,
    )
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = place / "client.pem"
    path.write_bytes(key + "".join(map(pem, made.chain)).encode())
    return path
