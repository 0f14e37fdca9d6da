"""The one-time password of a SCEP enrollment: from a file, or from a command that fetches one.

It is fetched when the CSR is made, and once for each CSR. Nothing here shows it, and no output of a command.
"""

from __future__ import annotations

from holdfast.host.config_model import ChallengeSettings
from holdfast.host.config_secrets import read_secret
from holdfast.host.programs import ProgramError, run_program
from holdfast.wire.csr import CHALLENGE_LIMIT
from holdfast.wire.errors import ConfigError, HoldfastError


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
    try:
        output = run_program(settings.command, settings.timeout_seconds)
    except ProgramError as error:
        raise ChallengeError("scep.challenge-command", str(error)) from None
    return output.removesuffix(b"\n").removesuffix(b"\r")
