"""What a step is at, in words: a line that comes and goes on a terminal, and one for each thing done."""

from __future__ import annotations

import sys
from typing import Final

from holdfast.cli import terminal
from holdfast.cli.words import shown

_WORDS: Final = {
    "SeekRegistrars": "looking for a registrar on the network",
    "PrepareAttempt": "meeting the registrar",
    "RequestVoucher": "asking whose device this is",
    "MeetRegistrar": "seeing whether that is the domain's registrar",
    "Discover": "reading the CA's certificates and wishes",
    "MakeRequest": "making a key and the request",
    "Enroll": "sending the request",
    "Resume": "asking again for the answer",
    "ProveCredential": "trying the new certificate in a real connection",
    "Deploy": "placing the files for other programs",
    "RunHook": "telling other programs",
    "CheckStanding": "asking whether the certificate was revoked",
    "AskHint": "asking when the CA would like to see a renewal",
    "RetireKeys": "destroying keys that are no longer used",
    "Wait": "waiting as long as a server asked",
}
_FAILED: Final = ("Failed", "Refused", "Lost", "Interrupted")
_WAITS: Final = ("Pending",)


def words(effect: str) -> str:
    """What the effect of that name does."""
    return _WORDS.get(effect, effect)


def doing(effect: str, identity: str) -> None:
    """Show on a terminal what is being done, until the next line takes its place."""
    if terminal.watched():
        text = shown(f"{_who(identity)}{words(effect)} ...")[: terminal.width() - 1]
        sys.stdout.write(f"\r\x1b[K{text}")
        sys.stdout.flush()


def done(effect: str, identity: str, result: str, seconds: float) -> None:
    """One line for what has been done."""
    clear()
    print(f"{_who(identity)}{words(effect)}: {_outcome(result)} ({seconds * 1000:.0f} ms)", flush=True)


def clear() -> None:
    """Take away what :func:`doing` shows."""
    if terminal.watched():
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()


def _who(identity: str) -> str:
    return f"{identity}: " if identity else ""


def _outcome(result: str) -> str:
    if any(mark in result for mark in _FAILED):
        return "failed"
    return "must wait" if any(mark in result for mark in _WAITS) else "done"
