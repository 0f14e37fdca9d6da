"""A software token: SoftHSM2 with its files in one directory, for demonstration and tests.

Whoever uses it needs ``environment`` in theirs: the module finds its files by ``SOFTHSM2_CONF``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.wire.errors import KeyStoreUnavailable
from holdfast_factory.files import make_private_directory, write_file

MODULES: Final = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
)
_VARIABLE: Final = "SOFTHSM2_CONF"
_SO_PIN: Final = "so-pin-of-a-software-token"


@dataclass(frozen=True, slots=True)
class SoftToken:
    """One initialised token. ``pin_file`` holds its user PIN."""

    directory: Path
    label: str
    module: Path
    pin_file: Path

    @property
    def uri(self) -> str:
        """Which token it is."""
        return f"pkcs11:token={self.label}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to see this token and no other."""
        return {_VARIABLE: str(self.directory / "softhsm2.conf")}

    def see(self) -> None:
        """Make this process, and those that it starts, see this token and no other."""
        os.environ.update(self.environment)


def make_token(directory: Path, label: str, pin: str) -> SoftToken:
    """Make the token *label* in *directory*, or find the one that is there.

    *label* has no character that a URI would encode. Raises KeyStoreUnavailable(``key.no-softhsm``) where
    SoftHSM2 is missing or fails.
    """
    module = next((m for m in MODULES if m.is_file()), None)
    tool = shutil.which("softhsm2-util")
    if module is None or tool is None:
        raise KeyStoreUnavailable("key.no-softhsm", "SoftHSM2 is missing (Debian: softhsm2)")
    store = directory / "tokens"
    make_private_directory(store)
    token = SoftToken(directory, label, module, directory / "pin")
    if token.pin_file.exists():
        return token
    write_file(
        directory / "softhsm2.conf",
        f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n".encode(),
    )
    done = subprocess.run(  # noqa: S603 - a tool of ours, found on the path
        [tool, "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", _SO_PIN],
        env={**os.environ, **token.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise KeyStoreUnavailable("key.no-softhsm", (done.stdout + done.stderr).strip())
    write_file(token.pin_file, pin.encode(), private=True)
    return token
