"""Who is around the gateway: its maker, who gave its TPM an identity, and its owner's servers out here."""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.model import HttpRequest
from holdfast_factory.authority import Product, init_factory
from holdfast_factory.device import Device, make_device
from holdfast_factory.ek import EK_AUTHORITY
from holdfast_factory.swtpm import Swtpm
from holdfast_sim import transcript
from holdfast_sim.answers import Answer, Peer
from holdfast_sim.manufacturer import Manufacturer
from holdfast_sim.serve import Running, running_server
from holdfast_sim.transcript import Transcript
from holdfast_sim.world import EstPolicy, VoucherPolicy, World
from lifecycle.tpm_contents import handles
from machine import disk
from machine.gateway import Gateway, Hardware

SERIAL = "HF-2027-000042"
REGISTRAR = "registrar.example"
LIFE = timedelta(days=7)

CONFIG = """\
idevid: {{chain-file: idevid-chain.pem}}
keys: {{storage: {storage}}}
manufacturer:
  anchors: manufacturer-anchors.pem
  voucher-signers: ["{signer}"]
registrars: ["{registrar}:{port}"]
clock: {clock}
identities:
  - name: ldevid
    deploy: {{group: mosquitto, mode: "0640", key-mode: "0640"}}
"""


class Requests(Transcript):
    """The transcript, and a bell that rings with each of its entries."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._bell = threading.Condition()

    def add(
        self, at: datetime, server: str, peer: Peer, request: HttpRequest, answer: Answer
    ) -> transcript.Entry:
        entry = super().add(at, server, peer, request, answer)
        with self._bell:
            self.count += 1
            self._bell.notify_all()
        return entry

    def wait_for(self, number: int, seconds: float) -> None:
        """Until *number* requests were answered in all."""
        with self._bell:
            assert self._bell.wait_for(lambda: self.count >= number, seconds), f"{self.count} of {number}"


class ServerClock:
    """The servers' clock: this host's, moved by ``ahead``."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @property
    def rtc(self) -> str:
        """What a right clock of a gateway shows, as QEMU takes it."""
        return f"{self():%Y-%m-%dT%H:%M:%S}"


@dataclass
class Town:
    """The maker's works, the owner's servers, and the disk and TPM of a gateway as it was packed."""

    home: Path
    debian: Path
    device: Device
    running: Running
    clock: ServerClock
    requests: Requests
    shipped: frozenset[int]
    made: int = 0

    @property
    def issued(self) -> int:
        """Certificates that the owner's CA has issued."""
        return len(self.running.world.issued)

    def configuration(self, *, clock: str, storage: str) -> str:
        port = self.running.addresses.registrar[1]
        return CONFIG.format(
            storage=storage, signer=self.device.voucher_signer, registrar=REGISTRAR, port=port, clock=clock
        )

    def unpack(self, *, clock: str = "auto", storage: str = "blob", interface: str = "tpm-crb") -> Hardware:
        """A gateway out of its box: a disk and a TPM of its own."""
        self.made += 1
        place = self.home / f"gateway-{self.made}"
        place.mkdir()
        shutil.copytree(self.home / "tpm", place / "tpm")
        disk.copy(self.home / "disk", place / "disk")
        disk.write(
            place / "disk", "/etc/holdfast/holdfast.yaml", self.configuration(clock=clock, storage=storage)
        )
        return Hardware(place / "disk", place / "tpm", self.debian, interface)

    def twin(self, hardware: Hardware) -> Hardware:
        """The same gateway in the same state, once more."""
        self.made += 1
        place = self.home / f"gateway-{self.made}"
        place.mkdir()
        shutil.copytree(hardware.tpm, place / "tpm")
        disk.copy(hardware.disk, place / "disk")
        return replace(hardware, disk=place / "disk", tpm=place / "tpm")

    def scrap(self, hardware: Hardware) -> None:
        shutil.rmtree(hardware.disk.parent)

    def power_on(self, hardware: Hardware, *, append: str = "") -> Gateway:
        """With a right clock, unless *hardware* says another."""
        hardware = replace(hardware, append=append, rtc=hardware.rtc or self.clock.rtc)
        return Gateway(hardware, hardware.disk.parent)


@contextmanager
def founded(home: Path) -> Iterator[Town]:
    """A town whose servers run until the block ends."""
    with ExitStack() as stack:
        clock = ServerClock()
        now = clock().replace(microsecond=0)
        factory = init_factory(
            home / "works", Product("masa.example", "Holdfast Example Works", "Gateway"), now
        )
        with Swtpm(home / "tpm", ek=True, ek_authority=home / "works" / EK_AUTHORITY) as tpm:
            device = make_device(factory, tpm.tcti, SERIAL, home / "device", now)
            shipped = frozenset(handles(tpm.tcti).persistent)
        world = World.create(
            clock,
            secrets.token_bytes,
            manufacturer=Manufacturer.load(home / "works", secrets.token_bytes),
            names=("localhost", "127.0.0.1", REGISTRAR),
            est=EstPolicy(
                life=LIFE, usages=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
            ),
            vouchers=VoucherPolicy(open_ledger=True),
        )
        requests = Requests()
        running = stack.enter_context(running_server(world, transcript=requests))
        debian = disk.debian()
        disk.build(home / "disk", debian, home / "device", f"10.0.2.2 {REGISTRAR}")
        yield Town(home, debian, device, running, clock, requests, shipped)


def free_port() -> int:
    """A port of the loopback that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
