"""``make proof-firstboot``: everything that the first boot must show."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import first_boot, tpm_commands
from demo.__main__ import perform
from proofs import artefacts
from proofs.runner import ROOT, FailedError, prove, pytests


def main() -> int:
    """Run all parts in order."""
    return prove(
        "firstboot",
        [
            ("demonstration", demonstration),
            ("openssl reads every artefact", openssl),
            ("budgets", budgets),
            (
                "BRSKI checklist, one violation a test",
                pytests("tests/wire/test_brski_verify.py", "tests/wire/test_brski_client.py"),
            ),
            (
                "EST client checks, one violation a test",
                pytests("tests/wire/test_est_client.py", "tests/wire/test_est_faults.py"),
            ),
            (
                "whole device against lying servers",
                pytests(
                    "tests/lifecycle/test_first_boot.py",
                    "tests/lifecycle/test_lying_servers.py",
                    "tests/lifecycle/test_bad_input.py",
                ),
            ),
            (
                "foreign vectors (RFC 8995, RFC 7030, RFC 9908, PKITS, openssl)",
                pytests(
                    "tests/wire/test_brski_vectors.py",
                    "tests/wire/test_est_csrattrs.py",
                    "tests/wire/test_chain_pkits.py",
                    "tests/wire/test_cms_foreign.py",
                    "tests/wire/test_csr.py",
                ),
            ),
            ("configuration errors name file, key path and line", pytests("tests/host/test_config.py")),
            (
                "kill -9 at every commit point and around every message",
                pytests(
                    *(f"{test}[{storage}]" for test in KILLED for storage in ("blob", "persistent")),
                    workers=True,
                    apart=True,
                ),
            ),
            ("independent EST peers, both directions", pytests(*EST_PEERS)),
            ("make demo from a clean clone", clean_clone),
        ],
    )


KILLED = (
    "tests/lifecycle/test_power_cuts.py::test_first_boot",
    "tests/lifecycle/test_power_cuts.py::test_renewal",
)

EST_PEERS = (
    "tests/interop/test_est_peers_clients.py",
    "tests/interop/test_est_peers_servers.py",
    "tests/interop/test_est_peers_tpm.py",
)


def demonstration() -> dict[str, Any]:
    """The main job itself."""
    told = perform(lambda text: print(text, flush=True))
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


def openssl() -> dict[str, Any]:
    """The third party."""
    with tempfile.TemporaryDirectory() as directory:
        return dict(artefacts.check(Path(directory)))


def budgets() -> dict[str, Any]:
    """Counted, not timed."""
    with tempfile.TemporaryDirectory() as directory:
        rows = tpm_commands.measure(Path(directory))
    costs = first_boot.measure()
    print("\n".join([*tpm_commands.table(rows), *first_boot.table(costs)]), flush=True)
    over = [r.operation for r in rows if not r.ok]
    over += [c.name for c in costs if c.connections > first_boot.MOST_CONNECTIONS]
    if over:
        raise FailedError(f"over budget: {', '.join(over)}")
    return {
        **{c.name: c.figures() for c in costs},
        "tpm_commands": {r.operation: len(r.commands) for r in rows if r.budget is not None},
    }


def clean_clone() -> dict[str, Any]:
    """What a newcomer does first."""
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "holdfast"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        done = subprocess.run(
            ["make", "--no-print-directory", "demo", "JSON=1"],
            cwd=clone,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise FailedError(done.stdout + done.stderr)
        try:
            told = json.loads(done.stdout)
        except ValueError as error:
            raise FailedError(f"not one JSON object on standard output: {done.stdout!r}") from error
    if not (told["ok"] and told["renewed"]):
        raise FailedError(done.stdout)
    return {"ok": True, "steps": len(told["steps"])}


if __name__ == "__main__":
    sys.exit(main())
