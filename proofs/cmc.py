"""``make proof-cmc``: CMC over EST and plain HTTP, and revocation by command."""

from __future__ import annotations

import sys
from typing import Any

from demo.__main__ import perform
from proofs.runner import prove, pytests


def main() -> int:
    """Run all parts in order."""
    return prove(
        "cmc",
        [
            ("demonstration, the key in a TPM, over EST", demonstration),
            ("the codec; openssl verifies what is signed", pytests("tests/wire/test_cmc_messages.py")),
            ("every way to ask, wait, confirm, prove and revoke", pytests("tests/sim/test_cmc_flows.py")),
            ("client checks, one violation a test", pytests("tests/sim/test_cmc_faults.py")),
            (
                "a life on CMC: power cuts at every point, waiting, ladder",
                pytests("tests/lifecycle/test_cmc_life.py", "tests/host/test_config_cmc.py"),
            ),
            ("hostile octets", pytests("tests/fuzz/test_fuzz_cmc.py")),
        ],
    )


def demonstration() -> dict[str, Any]:
    """First boot, use and renewal by CMC at the registrar's /fullcmc."""
    told = perform(lambda text: print(text, flush=True), "tpm", "cmc")
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


if __name__ == "__main__":
    sys.exit(main())
