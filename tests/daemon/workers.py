"""Workers that are not: real processes that say what a test wants."""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

from holdfast.resident.attempt import Attempt, Result

PATIENCE = 60.0

REPORT: dict[str, Any] = {
    "state": "domain vouched, ldevid active",
    "wait_seconds": 12.5,
    "note": "",
    "trouble": None,
    "steps": [],
    "agent": {
        "identities": [
            {
                "name": "ldevid",
                "state": "active",
                "generation": 3,
                "not_after": 1830000000,
                "transaction": "none",
                "transaction_id": "",
                "protocol": "",
                "attempts": 0,
            }
        ],
        "clock": "trusted",
        "tpm_commands": 5,
        "tpm_seconds": 0.25,
        "lockout": 0,
    },
}

SETTINGS: dict[str, Any] = {
    "settings": {
        "version": "1.2.3",
        "identities": [{"name": "ldevid", "chain": "/nowhere/chain.pem"}],
        "group": "",
        "metrics_file": None,
        "metrics_listen": None,
        "worker_seconds": 3600,
    }
}


def saying(*told: Any) -> str:
    """A script that prints these as lines of JSON."""
    lines = "".join(json.dumps(t) + "\n" for t in told)
    return f"import sys; sys.stdout.write({lines!r})"


def start(script: str, *, now: float = 0.0, longest: float = 3600.0) -> Attempt:
    """A worker that runs *script*."""
    return Attempt([sys.executable, "-I", "-S", "-c", script], {"PATH": "/usr/bin:/bin"}, now, longest)


def outcome(attempt: Attempt, *, now: float = 0.0) -> Result:
    """What comes of *attempt* while the clock stands at *now*."""
    end = time.monotonic() + PATIENCE
    while (result := attempt.proceed(now)) is None:
        left = end - time.monotonic()
        assert left > 0, "the worker never ended"
        select.select(attempt.descriptors, [], [], min(left, 1.0))
    return result
