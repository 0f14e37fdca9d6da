"""What the exit status of every command means: one table for the program, the manual and the tests."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_OPERATOR: Final = 2
EXIT_LOCKED: Final = 75  # EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED: Final = 130  # 128 and SIGINT, as shells count

MEANING: Final[dict[int, str]] = {
    EXIT_OK: "done, and all is well",
    EXIT_FAILED: "something is not well, or an attempt failed that will be made again",
    EXIT_OPERATOR: "a person must act: wrong arguments or configuration, or a fault that no retry cures",
    EXIT_LOCKED: "another step is running: try again in a moment",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C",
}


def epilog() -> str:
    """The table for ``--help``."""
    return "exit status:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANING.items())
