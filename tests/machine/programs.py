"""Programs of the host."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path


def run(*command: str | Path) -> str:
    """The output of a command that must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout
