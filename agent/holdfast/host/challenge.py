"""The one-time password of a SCEP enrollment: from a file, or from a command that fetches one.

It is fetched when the CSR is made, and once for each CSR. Nothing here shows it, and no output of a command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Final

from holdfast.host.config_model import ChallengeSettings
from holdfast.host.config_secrets import read_secret
from holdfast.wire.csr import CHALLENGE_LIMIT
from holdfast.wire.errors import ConfigError, HoldfastError

_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class ChallengeError(HoldfastError):
    """The command that fetches a challenge did not give one. It may later."""


def read_challenge(settings: ChallengeSettings) -> str:
    """The challenge, 1 to 255 characters. Raises ConfigError ``config.secret``, ``scep.challenge``, and
    ChallengeError ``scep.challenge-command``."""
    secret = _printed(settings) if settings.file is None else read_secret(settings.file)
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        raise ConfigError("scep.challenge", "the challenge is not UTF-8") from None
    if not 1 <= len(text) <= CHALLENGE_LIMIT or not text.isprintable():
        detail = f"a challenge has 1 to {CHALLENGE_LIMIT} printable characters"
        raise ConfigError("scep.challenge", detail, clause="RFC 2985 §5.4.1")
    return text


def _printed(settings: ChallengeSettings) -> bytes:
    name = settings.command[0]
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list of the configuration, no shell
            settings.command,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its arguments"
        raise ChallengeError("scep.challenge-command", f"{name} cannot be started: {reason}") from None
    try:
        output, _ = process.communicate(timeout=settings.timeout_seconds)
    except subprocess.TimeoutExpired:
        detail = f"{name} did not end within {settings.timeout_seconds:g} s"
        raise ChallengeError("scep.challenge-command", detail) from None
    finally:
        if process.returncode is None:
            _kill(process)
    if process.returncode:
        raise ChallengeError("scep.challenge-command", f"{name} ended with status {process.returncode}")
    return output.removesuffix(b"\n").removesuffix(b"\r")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole session: a command may have started others, which hold our end of the pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
