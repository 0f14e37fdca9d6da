"""What a configuration says about CMC beyond its schema: one secret, and a request that can carry it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.host.config_tokens import Reading
from holdfast.host.config_yaml import Fault, KeyPath

_WAY: Final = "set key.algorithm to rsa2048"
_SECRETS: Final = ("secret-file", "secret-credential")


def faults(reading: Reading, path: KeyPath) -> Iterator[Fault]:
    """Every rule that does not hold for the ``cmc`` block at *path*."""
    cmc = reading.get(path, dict) or {}
    sources = [k for k in _SECRETS if k in cmc]
    for other in sources[1:]:
        yield reading.fault((*path, other), f"excludes {sources[0]}")
    if "identification" in cmc and not sources:
        yield reading.fault((*path, "identification"), "needs a secret-file or secret-credential")
    yield from reading.file((*path, "secret-file"), secret=True)
    yield from reading.credential((*path, "secret-credential"))
    decrypts = cmc.get("possession") == "decryption"
    if sources and decrypts:
        yield reading.fault((*path, "possession"), f"excludes {sources[0]}: the new key signs that request")
    if cmc.get("request") == "simple":
        for key in (*sources, *(["possession"] if decrypts else [])):
            yield reading.fault((*path, key), "is not for a simple request")
        url = reading.get((*path, "url"), str)
        if url is None or not url.startswith("https://") or "/.well-known/est" in url:
            yield reading.fault((*path, "request"), "simple needs a url of https:// that is not EST's")
    algorithm = reading.get((*path[:2], "key", "algorithm"), str) or "p256"
    if decrypts and not algorithm.startswith("rsa"):
        yield reading.fault(
            (*path, "possession"), f"a {algorithm} key cannot decrypt: set key.algorithm to rsa2048"
        )
