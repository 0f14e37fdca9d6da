"""A PKCS#11 token that is a TPM: tpm2-pkcs11 on swtpm, behind the resource manager that it needs.

tpm2-pkcs11 leaves objects loaded, and its tool more than a bare TPM has room for. tpm2-abrmd swaps them in
and out and flushes what its clients leave; it wants a D-Bus, so each token gets a bus of its own.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from holdfast_factory.swtpm import Swtpm

TCTI = "tabrmd:bus_type=session"
WAIT = 60.0


def module() -> Path:
    """Where this Debian has the module, whatever its machine type."""
    return next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"))


@dataclass(frozen=True)
class Tpm2Token:
    """``tpm`` is the chip's own address, past the resource manager."""

    tpm: str
    environment: dict[str, str]
    label: str


@contextmanager
def tpm2_token(directory: Path, label: str, pin: str) -> Iterator[Tpm2Token]:
    """A token on a new TPM. Leaves no process behind."""
    store = directory / "store"
    store.mkdir(parents=True)
    with Swtpm(directory / "tpm") as tpm, bus(directory) as address:
        environment = {
            "DBUS_SESSION_BUS_ADDRESS": address,
            "TPM2_PKCS11_STORE": str(store),
            "TPM2_PKCS11_TCTI": TCTI,
            "TPM2TOOLS_TCTI": TCTI,
            "TPM2_PKCS11_LOG_LEVEL": "0",
            "TSS2_LOG": "all+NONE",
        }
        with resource_manager(tpm.tcti, environment):
            for arguments in (
                ("init",),
                ("addtoken", "--pid", "1", "--label", label, "--userpin", pin, "--sopin", "of-an-officer"),
            ):
                done = subprocess.run(
                    ["tpm2_ptool", *arguments, "--path", store],
                    env={**os.environ, **environment},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr
            yield Tpm2Token(tpm.tcti, environment, label)


@contextmanager
def bus(directory: Path) -> Iterator[str]:
    """A D-Bus for this token alone; its address."""
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1"]
    with Child([*command, f"--address=unix:path={directory / 'bus'}"], {}, "unix:") as child:
        yield child.sign.strip()


@contextmanager
def resource_manager(tcti: str, environment: dict[str, str]) -> Iterator[None]:
    """tpm2-abrmd on that bus, ready to serve."""
    command = ["tpm2-abrmd", "--session", "--allow-root", "--tcti", tcti, "--logger=stdout"]
    talkative = {**environment, "G_MESSAGES_DEBUG": "all"}  # else it does not tell when it is ready
    with Child(command, talkative, "on_name_acquired"):
        yield


class Child:
    """A process that is ready when it writes a line with *sign* in it, and whose output is read on."""

    def __init__(self, command: list[str], environment: dict[str, str], sign: str) -> None:
        self.sign = sign
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not self._ready.is_set() and self.sign in line:
                self.sign = line
                self._ready.set()

    def __enter__(self) -> Self:
        self._reader.start()
        if not self._ready.wait(WAIT):
            self.__exit__()
            raise TimeoutError(f"{self._process.args} is not ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        assert self._process.stdout is not None
        self._process.stdout.close()
