"""``make proof-cmc``: CMC over EST and plain HTTP, and revocation by command."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from demo.__main__ import perform
from demo.stage import Run, Stage
from proofs.runner import FailedError, prove, pytests

FULL: Final = os.environ.get("FULL") == "1"
DOGTAG: Final = (("Dogtag CA and its tools", pytests("tests/interop/test_cmc_peers_dogtag.py")),)


def main() -> int:
    """Run all parts in order."""
    return prove(
        "cmc",
        [
            ("demonstration, the key in a TPM, over EST", demonstration),
            ("possession by decryption, the RSA key in a TPM, over plain HTTP", decryption),
            ("openssl verifies every message of both sides", pytests("tests/sim/test_cmc_openssl.py")),
            ("the codec; openssl verifies what is signed", pytests("tests/wire/test_cmc_messages.py")),
            ("every way to ask, wait, confirm, prove and revoke", pytests("tests/sim/test_cmc_flows.py")),
            ("client checks, one violation a test", pytests("tests/sim/test_cmc_faults.py")),
            (
                "a life on CMC: power cuts at every point, waiting, ladder",
                pytests("tests/lifecycle/test_cmc_life.py", "tests/host/test_config_cmc.py"),
            ),
            ("holdfast revoke, live: CMC, CMP, and CMC for EST", revocation),
            (
                "revocation by every protocol that can; what the record says then",
                pytests("tests/lifecycle/test_revoking.py", "tests/cli/test_revoke.py"),
            ),
            ("hostile octets", pytests("tests/fuzz/test_fuzz_cmc.py")),
            ("messages that others made", pytests("tests/wire/test_cmc_vectors.py")),
            (
                "BouncyCastle as client and server",
                pytests(
                    "tests/interop/test_cmc_judges.py",
                    "tests/interop/test_cmc_peers_servers.py",
                    "tests/interop/test_cmc_peers_clients.py",
                ),
            ),
            *(
                [("Dogtag CA and its tools", pytests("tests/interop/test_cmc_peers_dogtag.py"))]
                if FULL
                else []
            ),
        ],
    )


def demonstration() -> dict[str, Any]:
    """First boot, use and renewal by CMC at the registrar's /fullcmc."""
    told = perform(lambda text: print(text, flush=True), "tpm", "cmc")
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


def decryption() -> dict[str, Any]:
    """The server hides a value, and the key opens it in the TPM; then a renewal, in the same way."""
    with Stage(protocol="cmc") as stage:
        url = stage.servers.addresses["cmc"]
        told = stage.config.read_text()
        settings = f"      - cmc: {{url: '{url}', possession: decryption}}\n    key: {{algorithm: rsa2048}}\n"
        stage.config.write_text(told.replace("      - cmc: {}\n", settings))
        stage.hardware.take()
        first = _serial(stage, "step", "--json")
        second = _serial(stage, "step", "--json", "--renew", "ldevid")
        if first == second:
            raise FailedError("the renewal brought the same certificate")
        status = _ran(stage, "status", "--json").told["identities"][0]
    return {"first": first, "renewed": second, "key": status["credential"]["key"]}


def revocation() -> dict[str, Any]:
    """Each certificate is revoked by command, with its key in the TPM; the next step brings another one."""
    return {protocol: _revoked(protocol) for protocol in ("cmc", "cmp", "est")}


def _revoked(protocol: str) -> str:
    with Stage(protocol=protocol) as stage:
        stage.hardware.take()
        first = _serial(stage, "step", "--json")
        told = _ran(stage, "revoke", "--yes", "--json", "--reason", "superseded").told
        if not told["ok"] or told["serial"] != first:
            raise FailedError(f"revoked {told}, meant {first}")
        why = _ran(stage, "why", status=1).output
        if "its last one was revoked" not in why or "by itself" not in why:
            raise FailedError(f"holdfast why does not know of it: {why}")
        second = _serial(stage, "step", "--json")
        if second == first:
            raise FailedError("the certificate that was revoked is in use again")
    return f"{first} by {told['by']}, then {second}"


def _serial(stage: Stage, *command: str) -> str:
    _ran(stage, *command)
    credential: dict[str, Any] = _ran(stage, "status", "--json").told["identities"][0]["credential"]
    return str(credential["serial"]).lower()


def _ran(stage: Stage, *command: str, status: int = 0) -> Run:
    run = stage.agent(*command)
    if run.status != status:
        raise FailedError(f"{command}: {run.status} {run.output} {run.errors}")
    return run


if __name__ == "__main__":
    sys.exit(main())
