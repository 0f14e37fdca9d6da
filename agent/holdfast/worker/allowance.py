"""How long an effect may take before it counts as hung: what the resident process waits for a worker.

Generous on purpose. A hang costs some minutes and nobody is waiting; an attempt that is cut off although it
was only slow would be cut off each time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.host.config import IdentitySettings, Settings
from holdfast.life import events as ev
from holdfast.wire.model import KeyAlgorithm

SLACK: Final = 120.0
"""For a TPM that has other clients and a board that swaps."""

RSA_SECONDS: Final = 900.0
"""Chips need up to 15 s for RSA-2048 on a good day, and primes are a matter of luck."""

CONNECTIONS: Final = 4
"""Each bounded by ``limits.total-seconds``; an exchange that has to connect anew takes no more."""

_RSA: Final = frozenset({KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072})


def allowed(effect: ev.Effect, settings: Settings, identity: IdentitySettings | None) -> float:
    """Seconds for *effect*."""
    seconds = SLACK + CONNECTIONS * settings.limits.total_seconds
    rsa = identity is not None and identity.key.algorithm in _RSA
    return seconds + RSA_SECONDS if rsa and isinstance(effect, ev.MakeRequest) else seconds


def allowance(wait: timedelta) -> float:
    """Seconds for a wait that a server asked for."""
    return SLACK + wait.total_seconds()
