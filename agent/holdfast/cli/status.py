"""``holdfast status``: what the device has, what it is doing, and what went wrong last. Touches no TPM."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

from holdfast.cli.asked import add_socket_option, ask_instead
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK
from holdfast.cli.reasons import explain
from holdfast.cli.report import device_report
from holdfast.cli.view import look
from holdfast.cli.words import relative, shown, times
from holdfast.wire.errors import ConfigError, StateError


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("status", help="what the device has and what it is doing")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_socket_option(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if every configured identity has a usable credential, else 1. Who may not read the record
    is told what the running agent says."""
    try:
        view = look(arguments.config)
    except (ConfigError, StateError) as error:
        return ask_instead(arguments.socket, error, as_json=arguments.json)
    reasons = explain(view.record, view.settings, view.settings.identities, view.now)
    told = device_report(view.record, view.note, reasons, view.now)
    if arguments.json:
        print(json.dumps(told))
    else:
        print("\n".join(text(told)))
    usable = {i["name"] for i in told["identities"] if i["credential"]["state"] == "active"}
    return EXIT_OK if usable >= {i.name for i in view.settings.identities} else EXIT_FAILED


def text(told: dict[str, Any]) -> list[str]:
    """The report as lines for a person."""
    domain = told["domain"]
    why = {reason["part"]: reason for reason in told["why"]}
    now = told["clock"]["now"] if told["clock"] else None
    lines = [f"domain      {domain['state']}" + (f" by {domain['registrar']}" if domain["registrar"] else "")]
    lines += [f"  anchor    {a['subject']} (from {a['provenance']})" for a in domain["anchors"]]
    lines += _next(why.pop("domain", None), now)
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
        lines += [
            f"  ladder    from {m['from']} to {m['to']}: {m['code']} at {m['at']}"
            for m in entry["ladder"]["moves"][-1:]
        ]
        lines += _next(why.pop(entry["name"], None), now)
        if entry["ladder"]["moves"]:
            move = entry["ladder"]["moves"][-1]
            lines.append(f"  ladder    {move['to']} since {move['at']}, from {move['from']} ({move['code']})")
        deployment = entry["deployment"]
        if deployment["stage"] not in {None, "hooks run"}:
            lines.append(f"  deployed  not yet: {deployment['stage']}")
            lines += _next(why.pop(f"{entry['name']} deployment", None), now)
    for name, reason in why.items():
        lines += [f"{name:<11} none", *_next(reason, now)]
    if told["clock"] and told["clock"]["state"] != "trusted":
        lines.append(f"clock       {told['clock']['state']}, at {told['clock']['now']}")
    if told["note"]:
        lines.append(f"note        {told['note']}")
    # Subjects and errors are in the words of strangers: none may drive the terminal.
    return [shown(line) for line in lines]


def _next(reason: dict[str, Any] | None, now: str | None) -> list[str]:
    """When this part acts next; if it failed, how, and what can be done."""
    if reason is None:
        return []
    lines = []
    if reason["next_attempt"]:
        failures = times(reason["failed_attempts"], "failure")
        after = f" after {failures}" if reason["failed_attempts"] else ""
        distance = (
            relative(datetime.fromisoformat(reason["next_attempt"]), datetime.fromisoformat(now))
            if now
            else ""
        )
        lines.append(f"  next      {reason['next_attempt']}{after} ({distance})")
    error = reason["error"]
    if error:
        clause = f" ({error['clause']})" if error["clause"] else ""
        lines.append(f"  trouble   {error['code']}: {error['detail']}{clause} at {error['at']}")
        lines.append(f"  advice    {reason['advice']}")
    return lines
