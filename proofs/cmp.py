"""``make proof-cmp``: CMP, BRSKI-AE, and strangers who judge both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from demo.__main__ import perform
from holdfast.wire import algorithm_oids
from holdfast.wire.cmp import mac
from holdfast.wire.cmp.mac import MacParameters
from holdfast.wire.errors import TrustError
from proofs.runner import ROOT, FailedError, prove, pytests

MUTANTS: Final = 1_000_000 if os.environ.get("FULL") == "1" else 100_000
PROCESSES: Final = 2
BOMB_MS: Final = 10.0
"""How long a bomb may take, the quickest of a few tries: our work is measured, not the machine's load."""


def main() -> int:
    """Run all parts in order."""
    return prove(
        "cmp",
        [
            ("first boot by BRSKI-AE, keys in a TPM", lambda: demonstration("tpm")),
            ("first boot by BRSKI-AE, keys on a PKCS#11 token", lambda: demonstration("pkcs11")),
            ("client checks, one violation a test", pytests("tests/sim/test_cmp_faults.py")),
            (
                "every request, in every mood of the server",
                pytests("tests/sim/test_cmp_flows.py", "tests/sim/test_cmp_server.py"),
            ),
            (
                "a device's life: ladder, shared secret, power cuts",
                pytests("tests/lifecycle/test_cmp_rung.py", workers=True),
            ),
            (
                "foreign messages, and ours as others read them",
                pytests("tests/wire/test_cmp_vectors.py"),
            ),
            ("ML-DSA: answers and chains", pytests("tests/wire/test_cmp_post_quantum.py")),
            ("KEM-based protection: exchange, MAC, violations", pytests("tests/sim/test_cmp_kem.py")),
            ("spoilt answers in whole exchanges", pytests("tests/fuzz/test_fuzz_cmp.py")),
            ("mutants of every message", mutants),
            ("bombs of iterations", bombs),
            (
                "independent servers, clients and an RA",
                pytests(
                    "tests/interop/test_cmp_peers_servers.py",
                    "tests/interop/test_cmp_peers_clients.py",
                    "tests/interop/test_cmp_peers_ra.py",
                    workers=True,
                ),
            ),
        ],
    )


def demonstration(keys: str) -> dict[str, Any]:
    """Voucher by BRSKI, enrollment by CMP signed with the IDevID, use, renewal by kur."""
    told = perform(lambda text: print(text, flush=True), keys, "cmp")
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


def mutants() -> dict[str, Any]:
    """Nothing but the family of errors comes out. Warnings of libraries count as errors here."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fuzz.cmp_mutants", str(MUTANTS // PROCESSES), str(seed)],
            cwd=ROOT / "tests",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(PROCESSES)
    ]
    finished = [(process.communicate(), process.returncode) for process in started]
    for (_, errors), status in finished:
        if status != 0:
            raise FailedError(errors)
    told = [json.loads(output) for (output, _), _ in finished]
    return {"mutants": sum(t["mutants"] for t in told), "well-formed": sum(t["read"] for t in told)}


def bombs() -> dict[str, Any]:
    """A message that orders a thousand million iterations is refused before the first."""
    figures: dict[str, Any] = {}
    for kind, owf in (("pbm", algorithm_oids.SHA256), ("pbmac1", algorithm_oids.HMAC_SHA256)):
        algorithm = MacParameters(kind, bytes(16), 1_000_000_000, owf).algorithm()
        quickest = min(_refusal(algorithm) for _ in range(20))
        figures[f"{kind}, ms"] = round(quickest, 3)
        if quickest > BOMB_MS:
            raise FailedError(f"{kind}: refused after {quickest:.1f} ms")
    return {**figures, "most iterations": mac.MOST}


def _refusal(algorithm: Any) -> float:
    began = time.perf_counter()
    try:
        mac.check(algorithm, b"secret", (b"data", bytes(32)))
    except TrustError as error:
        if error.code == "cmp.mac-iterations":
            return (time.perf_counter() - began) * 1000
    raise FailedError("a bomb was not refused")


if __name__ == "__main__":
    sys.exit(main())
