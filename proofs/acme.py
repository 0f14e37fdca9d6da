"""``make proof-acme``: everything that ACME must show."""

from __future__ import annotations

import sys
from typing import Any

from demo.__main__ import perform
from proofs.runner import FailedError, prove, pytests


def main() -> int:
    """Run all parts in order."""
    return prove(
        "acme",
        [
            ("first boot by device-attest-01, with the TPM's own word", demonstration),
            (
                "the client's checks, one violation a test",
                pytests("tests/wire/test_acme_client.py", "tests/wire/test_acme_attest.py"),
            ),
            (
                "a real TPM's statements; the attestation CA, one violation a test",
                pytests("tests/keys/test_tpm_attest.py", "tests/factory/test_attestation_ca.py"),
            ),
            ("whole steps: orders, accounts, faults, renewal information", pytests(*LIFE)),
            ("hostile octets", pytests("tests/fuzz/test_fuzz_acme.py")),
            (
                "pebble, step-ca and lego, BIND and tpm2-tools as judges",
                pytests("tests/interop/test_acme_peers.py"),
            ),
        ],
    )


LIFE = (
    "tests/lifecycle/test_acme_rung.py",
    "tests/host/test_acme_solvers.py",
    "tests/host/test_config_acme.py",
)


def demonstration() -> dict[str, Any]:
    """The main job by ACME."""
    told = perform(lambda text: print(text, flush=True), protocol="acme")
    certificate = next(s for s in told["steps"] if s["name"] == "first boot: ACME: the certificate")
    if not told["renewed"]:
        raise FailedError("the renewal changed neither certificate nor key")
    return {
        "ok": told["ok"],
        "renewed": told["renewed"],
        "key": told["ldevid"]["key"],
        "first_attestation_tpm_commands": certificate["tpm_commands"],
        "round_trips": sum(s["round_trips"] for s in told["steps"] if "first boot: ACME" in s["name"]),
    }


if __name__ == "__main__":
    sys.exit(main())
