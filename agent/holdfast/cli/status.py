"""``holdfast status``: what the device has, what it is doing, and what went wrong last. Touches no TPM."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdfast.cli.report import device_report
from holdfast.host.clock import BUILD_TIME
from holdfast.host.config import load
from holdfast.host.store import StateStore
from holdfast.life.record import DeviceRecord


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("status", help="what the device has and what it is doing")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if every configured identity has a usable credential, else 1."""
    settings = load(arguments.config)
    loaded = StateStore(settings.state_directory).load()
    record = loaded.record or DeviceRecord(floor=BUILD_TIME)
    told = device_report(record, loaded.note)
    if arguments.json:
        print(json.dumps(told))
    else:
        print("\n".join(text(told)))
    usable = {i["name"] for i in told["identities"] if i["credential"]["state"] == "active"}
    return 0 if usable >= {i.name for i in settings.identities} else 1


def text(told: dict[str, Any]) -> list[str]:
    """The report as lines for a person."""
    domain = told["domain"]
    lines = [f"domain      {domain['state']}" + (f" by {domain['registrar']}" if domain["registrar"] else "")]
    lines += [f"  anchor    {a['subject']} (from {a['provenance']})" for a in domain["anchors"]]
    lines += _next(domain)
    for entry in told["identities"]:
        credential = entry["credential"]
        lines.append(f"{entry['name']:<11} {credential['state']}, generation {credential['generation']}")
        if "subject" in credential:
            lines.append(f"  subject   {credential['subject']}")
            lines.append(f"  issuer    {credential['issuer']}")
            lines.append(f"  serial    {credential['serial']}")
            lines.append(f"  valid     {credential['not_before']} to {credential['not_after']}")
            lines.append(f"  key       {credential['key']}")
        if entry["transaction"]["state"] != "none":
            lines.append(f"  under way {entry['transaction']['purpose']}: {entry['transaction']['state']}")
        lines += _next(entry)
    if told["trouble"]:
        trouble = told["trouble"]
        clause = f" ({trouble['clause']})" if trouble["clause"] else ""
        lines.append(f"trouble     {trouble['code']}: {trouble['detail']}{clause} at {trouble['at']}")
    if told["note"]:
        lines.append(f"note        {told['note']}")
    # Subjects are in the words of whoever made the certificate: none may drive the terminal.
    return ["".join(c if c.isprintable() else " " for c in line) for line in lines]


def _next(part: dict[str, Any]) -> list[str]:
    if not part["next_attempt"]:
        return []
    return [f"  next      {part['next_attempt']} after {part['failed_attempts']} failures"]
