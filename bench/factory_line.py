"""From bare TPM to sealed device: Holdfast beside tpm2-tools and openssl, the same steps, in one run.

    python -m bench.factory_line [--units N] [--json]

Each runner gets fresh software TPMs, one after the other. Measured are the processor time of the station (its
own process and what it starts, not the TPM), that of the TPM, and the time on the clock. The ledger takes no
part on either side. A real chip's time gets shorter only by asking less: commands and round trips count too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from holdfast.wire.algorithms import PublicKey
from holdfast_factory import idevid
from holdfast_factory.authority import (
    Authority,
    Factory,
    Product,
    init_factory,
    load_authority,
    make_authority,
)
from holdfast_factory.chips.ek_issue import issue
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer, require_activated
from holdfast_factory.tpm_meter import TpmMeter
from holdfast_factory.tpm_unit import TpmUnit
from holdfast_factory.unit import Certificates

SCRIPT: Final = Path(__file__).with_name("factory_line.sh")
MODEL: Final = "Gateway"
GOAL: Final = 5.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one unit took: seconds of the station's processor, of the TPM's, and on the clock."""

    station: float
    tpm: float
    wall: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the units, and how many times more the other took."""

    units: int
    ours: Cost
    others: Cost
    commands: int
    round_trips: int
    others_commands: int

    @property
    def per_core(self) -> float:
        return self.others.station / self.ours.station

    @property
    def wall(self) -> float:
        return self.others.wall / self.ours.wall


class Line:
    """A factory with a maker of its own, whose EK certificates are the chips'."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        now = datetime.now(UTC).replace(microsecond=0)
        self.factory: Factory = init_factory(directory / "factory", Product("masa.example"), now)
        make_authority(self.factory, "ek-maker", "EK CA", now, now + timedelta(days=3650))
        self.maker: Authority = load_authority(self.factory.directory, "ek-maker")
        (directory / "roots.pem").write_bytes(self.maker.certificate.public_bytes(Encoding.PEM))
        issuer = self.factory.idevid_ca
        (directory / "ca.pem").write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
        (directory / "ca-key.pem").write_bytes(
            issuer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.examiner = TpmExaminer((self.maker.certificate,))

    def fresh(self, name: str) -> Swtpm:
        """A chip as its maker delivers it: a P-256 EK and its certificate."""
        chip = Swtpm(self.directory / name)
        chip.start()
        with TpmUnit(
            TctiLink(chip.tcti),
            name,
            endorser=lambda ek, said: issue(self.maker, ek, said, datetime.now(UTC).replace(microsecond=0)),
        ) as unit:
            unit.endorsement()
        return chip

    def work(self, tcti: str, serial: str) -> TctiLink:
        """All steps as the station takes them, but for the ledger."""
        link = TctiLink(tcti)
        now = datetime.now(UTC).replace(microsecond=0)
        with TpmUnit(link, tcti) as unit:
            shown = unit.endorsement()
            self.examiner.endorsement(shown, now)
            keys = unit.keys(MODEL, serial)
            proved = self.examiner.keys(keys, shown, MODEL, serial)
            sealed, secret = self.examiner.seal(proved, shown, secrets.token_bytes)
            require_activated(unit.activate(sealed), secret)
            made = [
                self._certificate(spki, serial, now, attests=spki == proved.iak)
                for spki in (proved.idevid, proved.iak)
            ]
            issuer = self.factory.idevid_ca.certificate.public_bytes(Encoding.DER)
            certificates = Certificates(made[0], made[1], issuer)
            unit.install(certificates)
            challenge = secrets.token_bytes(32)
            self.examiner.read_back(unit.read_back(challenge), certificates, challenge)
            unit.lock()
        return link

    def _certificate(self, spki: bytes, serial: str, now: datetime, *, attests: bool) -> bytes:
        key = load_der_public_key(spki)
        assert isinstance(key, PublicKey)
        issuer = self.factory.idevid_ca
        number = x509.random_serial_number()
        unsigned = idevid.profile(
            self.factory.product,
            issuer.certificate,
            key,
            serial,
            number=number,
            not_before=now,
            attests=attests,
        )
        return unsigned.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def compare(directory: Path, units: int) -> Comparison:
    """Run both, taking turns."""
    line = Line(directory)
    ours: list[Cost] = []
    others: list[Cost] = []
    counts = _count(line)
    for number in range(units):
        ours.append(_measured(line, f"a{number}", line.work))
        others.append(_measured(line, f"b{number}", lambda tcti, serial: _script(line, tcti, serial)))
    return Comparison(units, _median(ours), _median(others), *counts)


def _count(line: Line) -> tuple[int, int, int]:
    """Commands and round trips of ours, commands of the others."""
    chips = [line.fresh("count-ours"), line.fresh("count-others")]
    try:
        with TpmMeter(chips[0].port) as meter:
            link = line.work(meter.tcti, "HF-1")
            ours = len(meter.take())
        with TpmMeter(chips[1].port) as meter:
            _script(line, meter.tcti, "HF-2")
            others = len(meter.take())
    finally:
        for chip in chips:
            chip.stop()
    return ours, link.round_trips, others


def _script(line: Line, tcti: str, serial: str) -> None:
    subprocess.run(
        [SCRIPT, line.directory, serial],
        env={**os.environ, "TPM2TOOLS_TCTI": tcti, "LC_ALL": "C"},
        check=True,
        stderr=subprocess.PIPE,
    )


def _measured(line: Line, name: str, work: Callable[[str, str], object]) -> Cost:
    chip = line.fresh(name)
    try:
        assert chip._process is not None
        before, tpm, began = _station(), _processor(chip._process.pid), time.perf_counter()
        work(chip.tcti, f"HF-{name}")
        wall = time.perf_counter() - began
        return Cost(_station() - before, _processor(chip._process.pid) - tpm, wall)
    finally:
        chip.stop()


def _station() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(c, name) for c in costs) for name in ("station", "tpm", "wall")))


def table(found: Comparison) -> list[str]:
    """For a person."""
    rows = [f"{'a unit, median of ' + str(found.units):24}{'station CPU':>14}{'TPM CPU':>12}{'clock':>12}"]
    for name, cost in (("Holdfast", found.ours), ("tpm2-tools, openssl", found.others)):
        cells = "".join(
            f"{value * 1e3:{width}.1f} ms"
            for value, width in ((cost.station, 11), (cost.tpm, 9), (cost.wall, 9))
        )
        rows.append(f"{name:24}{cells}")
    rows.append(f"{'ratio':24}{found.per_core:13.1f}x{'':12}{found.wall:11.1f}x")
    trips = f"{found.commands} in {found.round_trips} round trips"
    rows.append(f"TPM commands: {trips}; the script {found.others_commands}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = compare(Path(directory), options.units)
    if options.json:
        print(json.dumps({**asdict(found), "per_core": found.per_core, "wall": found.wall}))
    else:
        print("\n".join(table(found)))
    return 0 if found.per_core >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
