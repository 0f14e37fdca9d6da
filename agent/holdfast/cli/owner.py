"""Who may take a step by hand: what root writes into another user's state, that user cannot read any more."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from holdfast.wire.errors import ConfigError


def check_owner(state: Path) -> None:
    """Raises ConfigError ``cli.user`` for root, where the directory *state* is another user's."""
    try:
        owner = state.stat().st_uid
    except OSError:
        return  # whoever needs it will say what is wrong with it
    if os.geteuid() != 0 or owner == 0:
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    raise ConfigError(
        "cli.user",
        f"{state} belongs to user {name}, who could not read what root writes: ask the running agent"
        f" (holdfast renew), or be that user: runuser -u {name} -- holdfast step",
    )
