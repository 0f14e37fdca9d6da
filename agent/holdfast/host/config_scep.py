"""What a configuration says about SCEP beyond its schema: one challenge, and a key that reads the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from holdfast.host.config_tokens import Reading
from holdfast.host.config_yaml import Fault, KeyPath

_CHALLENGES: Final = ("challenge-file", "challenge-credential", "challenge-command")
_WAYS: Final = "set key.algorithm to rsa2048, here or there, or decryption to transport-key or password"


def faults(reading: Reading, path: KeyPath) -> Iterator[Fault]:
    """Every rule that does not hold for the ``scep`` block at *path*."""
    scep = reading.get(path, dict) or {}
    sources = [k for k in _CHALLENGES if k in scep]
    for other in sources[1:]:
        yield reading.fault((*path, other), f"excludes {sources[0]}")
    yield from reading.file((*path, "challenge-file"), secret=True)
    yield from reading.credential((*path, "challenge-credential"))
    command = reading.get((*path, "challenge-command", 0), str)
    if command is not None and not command.startswith("/"):
        yield reading.fault((*path, "challenge-command", 0), "must be a path from the root (/...)")
    yield from _decryption(reading, path, scep, challenged=bool(sources))


def _decryption(
    reading: Reading, path: KeyPath, scep: dict[str, Any], *, challenged: bool
) -> Iterator[Fault]:
    """Somebody must be able to read the answer; better told now than when a key was made."""
    identity = path[:2]
    algorithm = reading.get((*path, "key", "algorithm"), str)
    algorithm = algorithm or reading.get((*identity, "key", "algorithm"), str) or "p256"
    decryption = scep.get("decryption", "own-key")
    if decryption == "own-key" and not algorithm.startswith("rsa"):
        where = (*path, "decryption") if "decryption" in scep else path
        yield reading.fault(where, f"a {algorithm} key cannot decrypt: {_WAYS}")
    persistent = reading.get(("keys", "storage"), str) == "persistent"
    if decryption == "transport-key" and persistent:
        yield reading.fault((*path, "decryption"), "needs keys.storage: blob")
    if decryption == "password" and not challenged:
        yield reading.fault((*path, "decryption"), "needs a challenge")
