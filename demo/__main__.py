"""``make demo``: a factory-fresh gateway finds its owner, gets its certificate, uses and renews it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from demo.application import hello
from demo.stage import Run, Stage
from demo.timeline import Line, lines, table


class DemoError(Exception):
    """Something that the demonstration shows did not happen."""


def main() -> int:
    """Exit status 0 if everything that is shown really happened."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--keys", choices=("tpm", "pkcs11"), default="tpm", help="the home of the device's keys"
    )
    parser.add_argument(
        "--protocol", choices=("est", "cmp", "cmc", "scep", "acme"), default="est", help="how to enroll"
    )
    options = parser.parse_args()
    quiet = options.json
    say: Callable[[str], None] = (lambda _text: None) if quiet else print
    try:
        told = perform(say, options.keys, options.protocol)
    except DemoError as error:
        if quiet:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if quiet:
        print(json.dumps(told))
    return 0


def perform(say: Callable[[str], None], keys: str = "tpm", protocol: str = "est") -> dict[str, Any]:
    """Run it all with the keys in a TPM or on a PKCS#11 token, enrolling by *protocol*.

    Returns the demonstration's JSON object.
    """
    rows: list[Line] = []
    began = time.monotonic()
    with Stage(keys=keys, protocol=protocol) as stage:
        made = stage.hardware.take()
        rows.append(
            Line(
                "factory: keys, IDevID, owner's servers",
                _ms(began),
                tuple(c.name for c in made),
                0,
                0,
            )
        )
        place = stage.made.idevid_uri or stage.made.idevid_handle
        say(f"A gateway left the factory: {stage.made.serial}, IDevID key at {place}.")
        say(f"The owner's registrar listens on {stage.servers.addresses['registrar']}.\n")

        rows += _step(stage, "first boot", stage.agent("step", "--json"))
        before = _identity(stage)
        say(_certificate(before))

        began = time.monotonic()
        greeting = hello(stage.config, stage.servers.addresses["application"])
        used = tuple(c.name for c in stage.hardware.take())
        rows.append(Line("use: mutual TLS with the LDevID", _ms(began), used, 1, 1))
        say(f"The owner's application says: {greeting}\n")

        rows += _step(stage, "renewal", stage.agent("step", "--json", "--renew", "ldevid"))
        after = _identity(stage)
        renewed = after["serial"] != before["serial"] and after["key"] != before["key"]
        if not renewed:
            raise DemoError("the renewal changed neither certificate nor key")
        say("\n".join(table(rows)) + "\n")
        say("$ holdfast status")
        say(stage.agent("status").output.rstrip())
    return {
        "ok": True,
        "steps": [row.told() for row in rows],
        "ldevid": {
            "subject": after["subject"],
            "serial": after["serial"],
            "not_after": after["not_after"],
            "key": after["key"],
        },
        "renewed": renewed,
        "protocol": protocol,
    }


def _step(stage: Stage, prefix: str, run: Run) -> tuple[Line, ...]:
    if run.status != 0:
        raise DemoError(f"{prefix} failed: {run.output} {run.errors}")
    return lines(prefix, run.told["steps"], stage.hardware.take(), stage.protocol.upper())


def _identity(stage: Stage) -> dict[str, Any]:
    run = stage.agent("status", "--json")
    if run.status != 0:
        raise DemoError(f"there is no usable credential: {run.output} {run.errors}")
    credential: dict[str, Any] = run.told["identities"][0]["credential"]
    return credential


def _certificate(credential: dict[str, Any]) -> str:
    return (
        f"It belongs to its owner now. LDevID: {credential['subject']}\n"
        f"  issued by {credential['issuer']}, valid until {credential['not_after']}, key {credential['key']}"
    )


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
