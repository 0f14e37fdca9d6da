"""Programs of the host that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, package: str) -> str:
    """The path of *program*. In CI a missing one is a failure, elsewhere a skip that names the *package*."""
    path = shutil.which(program)
    if path is not None:
        return path
    text = f"{program} is missing: install the package {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)
