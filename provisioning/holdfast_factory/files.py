"""Files that must be whole: written beside their place, made durable, renamed into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from holdfast.wire.errors import StateError


def make_private_directory(directory: Path) -> None:
    """Make *directory* for its owner only. Raises StateError if it cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StateError("factory.directory", f"{directory}: {error.strerror}") from error


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Replace *path* by *content* as one step; *private* gives mode 0600. Durable on return."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600 if private else 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise StateError("factory.write", f"{path}: {error.strerror}") from error


def append_line(path: Path, line: bytes) -> None:
    """Append one line to *path*. Durable on return."""
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
    except OSError as error:
        raise StateError("factory.write", f"{path}: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
