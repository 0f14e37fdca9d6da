"""Programs of the operator's: an argument list, a clean environment, a time limit, no shell."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class ProgramError(Exception):
    """It could not be started, did not end in time, or failed. The text names no argument: they may be
    secret."""


def run_program(argv: Sequence[str], timeout: float) -> bytes:
    """What *argv* printed. The whole session is killed when its time is over, children included."""
    name = argv[0]
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list of the configuration, no shell
            argv,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its arguments"
        raise ProgramError(f"{name} cannot be started: {reason}") from None
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{name} did not end within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            _kill(process)
    if process.returncode:
        raise ProgramError(f"{name} ended with status {process.returncode}")
    return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole session: a command may have started others, which hold our end of the pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
