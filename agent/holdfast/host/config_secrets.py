"""Secrets that the configuration names: read when they are needed, never kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.wire.errors import ConfigError

MAX_SECRET: Final = 4096


def secret_from(path: Path | None) -> Callable[[], bytes] | None:
    """A reader of the secret in *path*, to be called when it is needed; None without a file."""
    return None if path is None else lambda: read_secret(path)


def read_secret(path: Path) -> bytes:
    """The content of *path* without one trailing newline. Raises ConfigError, which never shows it."""
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise ConfigError("config.secret", f"{path}: {error.strerror}") from error
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(secret) <= MAX_SECRET:
        raise ConfigError("config.secret", f"{path}: a secret has 1 to {MAX_SECRET} bytes")
    return secret
