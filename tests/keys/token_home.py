"""Tokens as a :class:`~keys.contract.Home`: SoftHSM2, and tpm2-pkcs11 on a software TPM."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11 import Pkcs11Store
from holdfast.keys.pkcs11_uri import parse

PIN = "2468-gateway"


@dataclass(frozen=True)
class TokenHome:
    """One token; ``environment`` is what its module needs to find it."""

    module: Path
    uri: str
    directory: Path
    environment: dict[str, str]
    loaded: Callable[[], tuple[int, ...]] = field(default=tuple)

    def open(self) -> Pkcs11Store:
        os.environ.update(self.environment)
        return open_store(Pkcs11Settings(self.module, parse(self.uri), self.directory, PIN.encode))

    def leftovers(self) -> tuple[int, ...]:
        return self.loaded()


def need(*commands: str) -> None:
    """Skip, or in CI fail, unless all *commands* are there, each given as ``command:package``."""
    missing = [
        package for command, _, package in (c.partition(":") for c in commands) if not shutil.which(command)
    ]
    if missing:
        text = f"missing Debian packages: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
