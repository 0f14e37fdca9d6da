"""``make proof-scep``: SCEP, with keys that stay in hardware, and the ladder down to it and up again."""

from __future__ import annotations

import json
import sys
from typing import Any

from demo.__main__ import perform
from demo.stage import Stage
from proofs.runner import FailedError, prove, pytests

NOBODY = "127.0.0.1:1"
"""Where no server listens."""


def main() -> int:
    """Run all parts in order."""
    return prove(
        "scep",
        [
            ("demonstration, the RSA key in a TPM", demonstration),
            ("the whole ladder live", ladder),
            ("envelopes, both ways with openssl", pytests("tests/wire/test_cms_enveloped.py")),
            (
                "client checks, one violation a test",
                pytests("tests/sim/test_scep_faults.py", "tests/wire/test_scep_messages.py"),
            ),
            (
                "every operation; what is possible, before a key is made",
                pytests("tests/sim/test_scep_server.py", "tests/host/test_config_scep.py"),
            ),
            (
                "a life on SCEP: power cuts at every point, waiting, rollover, ladder",
                pytests("tests/lifecycle/test_scep_life.py"),
            ),
            ("keys in a TPM and on a token, EC keys too", pytests("tests/lifecycle/test_scep_hardware.py")),
            ("hostile octets", pytests("tests/fuzz/test_fuzz_scep.py")),
            (
                "independent servers and clients",
                pytests(
                    "tests/interop/test_scep_peers_servers.py", "tests/interop/test_scep_peers_clients.py"
                ),
            ),
        ],
    )


def demonstration() -> dict[str, Any]:
    """First boot, use and renewal by SCEP over plain HTTP."""
    told = perform(lambda text: print(text, flush=True), "tpm", "scep")
    return {"ok": told["ok"], "renewed": told["renewed"], "key": told["ldevid"]["key"]}


def ladder() -> dict[str, Any]:
    """EST dead, CMP dead: SCEP issues. EST comes back: the next renewal is there. Then down again."""
    with Stage(protocol="scep") as stage:
        alone = stage.config.read_text()
        (line,) = [each for each in alone.splitlines(keepends=True) if "- scep:" in each]
        rungs = [
            f"      - est: {{url: 'https://{NOBODY}/'}}\n",
            f"      - cmp: {{url: 'http://{NOBODY}/'}}\n",
            line,
        ]
        stage.config.write_text(alone.replace(line, "".join(rungs)))
        first = _taken(stage, "step", "--json")
        _expect(first, "scep")
        rungs[0] = "      - est: {}\n"
        stage.config.write_text(alone.replace(line, "".join(rungs)))
        second = _taken(stage, "step", "--json", "--renew", "ldevid")
        _expect(second, "est")
        rungs[0] = f"      - est: {{url: 'https://{NOBODY}/'}}\n"
        stage.config.write_text(alone.replace(line, "".join(rungs)))
        third = _taken(stage, "step", "--json", "--renew", "ldevid")
        _expect(third, "scep")
    return {"rungs": [each["rung"] for each in (first, second, third)]}


def _taken(stage: Stage, *command: str) -> dict[str, Any]:
    run = stage.agent(*command)
    if run.status != 0:
        raise FailedError(run.output + run.errors)
    status = stage.agent("status", "--json")
    entry: dict[str, Any] = status.told["identities"][0]
    return {"rung": entry["ladder"]["rung"], "serial": entry["credential"]["serial"]}


def _expect(taken: dict[str, Any], rung: str) -> None:
    if taken["rung"] != rung:
        raise FailedError(f"expected a certificate by {rung}, got {json.dumps(taken)}")


if __name__ == "__main__":
    sys.exit(main())
