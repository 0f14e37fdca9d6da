"""The chip's part of ``make proof-factory``: from bare TPM to sealed device, and who is refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import factory_line
from proofs.runner import FailedError, Part, pytests

UNITS: Final = 20 if os.environ.get("FULL") == "1" else 3


def throughput() -> dict[str, Any]:
    """Beside a script of tpm2-tools and openssl: the same steps on fresh chips, in this run."""
    with tempfile.TemporaryDirectory() as directory:
        found = factory_line.compare(Path(directory), UNITS)
    print("\n".join(f"    {line}" for line in factory_line.table(found)), flush=True)
    if found.per_core < factory_line.GOAL:
        raise FailedError(f"{found.per_core:.1f} times less processor time, the goal is {factory_line.GOAL}")
    return {
        "units": found.units,
        "station_ms": round(found.ours.station * 1e3, 1),
        "script_station_ms": round(found.others.station * 1e3, 1),
        "times_per_core": round(found.per_core, 1),
        "times_by_the_clock": round(found.wall, 1),
        "tpm_commands": found.commands,
        "round_trips": found.round_trips,
        "script_tpm_commands": found.others_commands,
    }


PARTS: Final[Sequence[tuple[str, Part]]] = (
    (
        "the TCG's requests and templates, a real switch's among them",
        pytests("tests/wire/test_tcg_csr.py", "tests/wire/test_tcg_templates.py"),
    ),
    (
        "refused: fake EK, software key, another TPM's IAK, old activation, swapped request, each other lie",
        pytests("tests/factory/test_tpm_examiner.py"),
    ),
    ("bare to sealed at every template, cut off at every command", pytests("tests/factory/test_tpm_unit.py")),
    (
        "TPM commands and round trips, as documented",
        pytests("tests/factory/test_chip_costs.py"),
    ),
    (
        "units behind a serial console and OpenSSH, and on a token",
        pytests(
            "tests/factory/test_remote_unit.py",
            "tests/interop/test_unit_ssh.py",
            "tests/factory/test_token_unit.py",
        ),
    ),
    ("tpm2-tools, openssl and swtpm as judges", pytests("tests/interop/test_chip_tools.py")),
    ("throughput beside tpm2-tools and openssl", throughput),
)
