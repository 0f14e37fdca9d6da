"""The floor around a line's stations: a maker of TPM chips, and robots that put unit after unit into a
fixture.

A unit is a software TPM of its own, new from its seeds, with an endorsement key certificate by the maker's
CA. It stays in its fixture until the ledger says that it is sealed; then the robot asks the chip itself
what it holds.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.wire import oids
from holdfast.wire.algorithms import accepted_key, spki, verify
from holdfast.wire.tpm import ek_profile
from holdfast.wire.tpm.public import parse_public
from holdfast_factory.authority import key_usage
from holdfast_factory.chip import Chip
from holdfast_factory.chips.ek_kinds import present
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import signing_digest
from holdfast_factory.tpm_meter import TpmMeter
from holdfast_factory.tpm_unit import TpmUnit
from holdfast_factory.unit import unit_of

_LIFE: Final = timedelta(days=3650)
_LOOK: Final = 0.02


class ChipMaker:
    """A maker of TPMs: a root that line stations trust by its file."""

    def __init__(self, root_file: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Chip Works Root")])
        root = (
            self._unsigned(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(ca=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        root_file.write_bytes(root.public_bytes(Encoding.PEM))

    def make(self, home: Path) -> str:
        """A new chip with its state in *home*, not running; returns the name that a ledger gives it."""
        with Swtpm(home) as chip:
            unit = TpmUnit(TctiLink(chip.tcti), "maker")
            area = unit.endorsement().public
            unit.close()
            key = parse_public(area).key
            with Chip(chip.tcti) as tpm:
                tpm.write_nv(present(frozenset()).certificate, self._certify(key))
        return unit_of(spki(key))

    def _certify(self, key: CertificatePublicKeyTypes) -> bytes:
        words = {
            ek_profile.MANUFACTURER: "id:43484950",
            ek_profile.MODEL: "Works 2",
            ek_profile.VERSION: "id:1",
        }
        told = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(o), w) for o, w in words.items()])
        usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oids.TCG_EK_CERTIFICATE)])
        agreement = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=True, key_cert_sign=False, crl_sign=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        return (
            self._unsigned(x509.Name([]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(told)]), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(agreement, critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )

    def _unsigned(self, subject: x509.Name, key: CertificatePublicKeyTypes) -> x509.CertificateBuilder:
        number = x509.random_serial_number()
        return x509.CertificateBuilder(self._name, subject, key, number, self._start, self._start + _LIFE)


@dataclass(frozen=True, slots=True)
class Found:
    """What the chip of a sealed unit holds, by its own word: the IDevID certificate, whose key signed."""

    unit: str
    idevid: bytes


class Fixture:
    """One place of a station, always at the same TCTI, and the robot that serves it until :meth:`close`.

    *next_unit* says whether there is another unit to be made; *sealed* whether a unit is a device by now.
    """

    def __init__(
        self, home: Path, maker: ChipMaker, next_unit: Callable[[], bool], sealed: Callable[[str], bool]
    ) -> None:
        self._home = home
        self._maker = maker
        self._next = next_unit
        self._sealed = sealed
        self._closed = threading.Event()
        self.made: list[str] = []
        self.found: list[Found] = []
        self.fault: BaseException | None = None
        self._socket = TpmMeter(None)
        self.commands = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def place(self) -> str:
        return f"tcti:{self._socket.tcti}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Let go of the unit. What went wrong is in ``fault``."""
        self._closed.set()
        self._thread.join()
        self._socket.close()

    @property
    def done(self) -> bool:
        """No unit is left for this fixture, or its robot is broken."""
        return not self._thread.is_alive()

    def _serve(self) -> None:
        try:
            while not self._closed.is_set() and self._next():
                home = self._home / f"unit{len(self.made)}"
                unit = self._maker.make(home)
                self.made.append(unit)
                with Swtpm(home) as chip:
                    self._socket.move(chip.port)
                    while not self._sealed(unit):
                        if self._closed.wait(_LOOK):
                            return
                    self._socket.move(None)
                    self.commands += len(self._socket.take())
                # The station may still be looking at it: ask the chip once it lies elsewhere.
                with Swtpm(home) as chip:
                    self.found.append(Found(unit, _ask(chip)))
                shutil.rmtree(home)
        except BaseException as error:  # noqa: BLE001 - whoever closes it looks
            self.fault = error


def _ask(chip: Swtpm) -> bytes:
    challenge = secrets.token_bytes(32)
    unit = TpmUnit(TctiLink(chip.tcti), "robot")
    read = unit.read_back(challenge)
    unit.close()
    key = accepted_key(x509.load_der_x509_certificate(read.idevid))
    verify(key, read.signature, challenge, signing_digest(key))
    return read.idevid
