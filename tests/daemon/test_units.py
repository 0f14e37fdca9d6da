"""What systemd reads: catalog and code speak of the same messages, and the two services share one sandbox.

``make proof-daemon`` lets a real systemd judge the units.
"""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.host import journal
from holdfast.resident import messages

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "systemd"
OWN = frozenset(
    [
        "Description",
        "ConditionPathExists",
        "After",
        "Wants",
        "StartLimitIntervalSec",
        "Type",
        "NotifyAccess",
        "ExecStart",
        "ExecReload",
        "Restart",
        "RestartSec",
        "WatchdogSec",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "TimeoutAbortSec",
        "KillMode",
        "OOMPolicy",
        "WantedBy",
        "Also",
        "Conflicts",
        "SuccessExitStatus",
    ]
)
"""Directives that are no wall: the two services may differ in them."""


def directives(unit: str) -> list[tuple[str, str]]:
    """Every assignment of *unit*, in order."""
    lines = (SYSTEMD / unit).read_text().splitlines()
    return [(k, v) for k, eq, v in (line.partition("=") for line in lines) if eq and not k.startswith("#")]


def test_every_message_is_explained_and_every_explanation_is_of_a_message() -> None:
    told = {m.id for m in vars(messages).values() if isinstance(m, journal.Message)}
    catalog = (SYSTEMD / "holdfast.catalog").read_text()
    explained = re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.MULTILINE)
    assert sorted(explained) == sorted(told)
    assert catalog.count("Subject: ") == catalog.count("Defined-By: Holdfast") == len(told)


def test_the_catalog_quotes_fields_that_are_sent() -> None:
    code = "".join((ROOT / "agent/holdfast" / f).read_text() for f in ("resident/narrator.py", "control.py"))
    quoted = set(re.findall(r"@([A-Z_]+)@", (SYSTEMD / "holdfast.catalog").read_text()))
    assert quoted
    assert {field for field in quoted if f'"{field}"' not in code} == set()


def test_the_step_on_a_timer_stands_behind_the_same_wall() -> None:
    walls = [
        [(k, v) for k, v in directives(unit) if k not in OWN]
        for unit in ("holdfast.service", "holdfast-step.service")
    ]
    resident, step = (dict.fromkeys(wall) for wall in walls)
    only_resident = [d for d in resident if d not in step]
    only_step = [d for d in step if d not in resident]
    # No netlink without somebody who waits for the network; PrivateUsers=no is the default, spelt out.
    assert only_step == [("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6")]
    assert only_resident == [
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        ("PrivateUsers", "no"),
    ]


def test_each_hole_has_its_reason() -> None:
    lines = (SYSTEMD / "holdfast.service").read_text().splitlines()
    for hole in ("SupplementaryGroups=", "PrivateDevices=no", "PrivateNetwork=no", "PrivateUsers=no"):
        (place,) = [n for n, line in enumerate(lines) if line.startswith(hole)]
        assert lines[place - 1].startswith("#"), f"{hole} stands without a reason"


def test_the_agent_s_default_places_are_those_of_the_units() -> None:
    from holdfast.control_client import DEFAULT_SOCKET
    from holdfast.daemon import DEFAULT_CONFIG

    assert ("ListenStream", str(DEFAULT_SOCKET)) in directives("holdfast.socket")
    assert ("ConditionPathExists", DEFAULT_CONFIG) in directives("holdfast.service")
    assert ("PathExists", "/run/holdfast/identities/%i/active") in directives("holdfast-identity@.path")
