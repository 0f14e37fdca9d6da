"""A software TPM as a child process: a real TPM 2.0 for the factory, the demo and the tests.

The swtpm TCTI expects the control channel one port above the data channel, so an adjacent free pair is
picked. Another process can take it before swtpm binds; swtpm then exits and another pair is tried.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from holdfast.wire.errors import KeyStoreUnavailable
from holdfast_factory.ek import EK_AUTHORITY, manufacture_ek

_HOST: Final = "127.0.0.1"
_ATTEMPTS: Final = 20
_READ_CLOCK: Final = bytes.fromhex("80010000000a00000181")
_SHUTDOWN_CLEAR: Final = bytes.fromhex("80010000000c000001450000")
_PACKAGES: Final = {"swtpm": "swtpm", "setpriv": "util-linux"}


class Swtpm:
    """A running swtpm whose state lives in *state_dir* (made if missing). Use it in a ``with`` block.

    ``ek=True`` manufactures an empty state first: endorsement keys with certificates, as a chip maker
    would. *ek_authority* is the directory of the CA that signs them (default: inside *state_dir*).
    *deadline* bounds a start, in seconds. Each data port is kept over :meth:`stop` and :meth:`start`,
    so a TCTI string stays valid over a TPM reset.

    The kernel kills swtpm when the *thread* that started it ends (PR_SET_PDEATHSIG): start it from one
    that lasts. Raises :class:`~holdfast.wire.errors.KeyStoreUnavailable`, naming what is missing.
    """

    def __init__(
        self, state_dir: Path, *, ek: bool = False, ek_authority: Path | None = None, deadline: float = 20.0
    ) -> None:
        self.state_dir = state_dir
        self._ek = ek
        self._ek_authority = ek_authority or state_dir / EK_AUTHORITY
        self._deadline = deadline
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """TCP port of the data channel; the control channel is one above."""
        if self._port is None:
            raise KeyStoreUnavailable("tpm.not-started", "swtpm was not started yet")
        return self._port

    @property
    def tcti(self) -> str:
        return f"swtpm:host={_HOST},port={self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start swtpm and return once it has answered a TPM command."""
        if self.running:
            return
        for tool, package in _PACKAGES.items():
            if shutil.which(tool) is None:
                raise KeyStoreUnavailable(
                    "tpm.swtpm-missing", f"{tool} is not installed: apt-get install {package}"
                )
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._ek:
            manufacture_ek(self.state_dir, self._ek_authority)
        end = time.monotonic() + self._deadline
        for _ in range(_ATTEMPTS):
            port = self._port or _adjacent_pair()
            if self._launch(port, end):
                self._port = port
                return
        raise KeyStoreUnavailable("tpm.swtpm-start", f"no free pair of ports in {_ATTEMPTS} attempts")

    def stop(self) -> None:
        """Shut the TPM down in order (TPM2_Shutdown, so no dictionary-attack count) and reap the process."""
        if self._process is not None:
            if self.running:
                # A client may hold the channel, or the TPM be stuck: SIGTERM then still saves its state.
                with contextlib.suppress(OSError):
                    _exchange(self.port, _SHUTDOWN_CLEAR, timeout=1.0)
                self._process.terminate()
                try:
                    self._process.wait(5)
                except subprocess.TimeoutExpired:
                    self._process.kill()
            self._reap()

    def restart(self, *, orderly: bool = True) -> None:
        """Reset the TPM on the same port. ``orderly=False`` is a power cut: no TPM2_Shutdown, SIGKILL."""
        if not orderly and self._process is not None:
            self._process.kill()
        self.stop()
        self.start()

    def _launch(self, port: int, end: float) -> bool:
        """Start on *port*; False if another process took the pair first."""
        pid_file = self.state_dir / "swtpm.pid"
        pid_file.unlink(missing_ok=True)
        channel = f"type=tcp,port={{}},bindaddr={_HOST}"
        command = ["setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2"]
        command += ["--tpmstate", f"dir={self.state_dir}", "--pid", f"file={pid_file}"]
        command += ["--server", channel.format(port), "--ctrl", channel.format(port + 1)]
        command += ["--flags", "not-need-init,startup-clear"]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(  # noqa: S603 (fixed words and our own paths, no shell)
            command, stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr
        )
        if not self._bound(pid_file, end):
            return False
        try:
            answer = _exchange(port, _READ_CLOCK, timeout=max(0.1, end - time.monotonic()))
        except OSError as error:
            raise self._failure(f"no answer to the first command ({error})") from error
        if answer[6:10] != bytes(4):
            raise self._failure(f"first command answered with {answer[:10].hex()}")
        return True

    def _bound(self, pid_file: Path, end: float) -> bool:
        """Wait for the pid file, which swtpm writes once both ports are its own."""
        assert self._process is not None
        while not (pid_file.exists() and pid_file.read_bytes().strip()):
            try:
                self._process.wait(0.005)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    raise self._failure(f"not ready after {self._deadline:g} s") from None
            else:
                text = self._text()
                if "Address already in use" not in text:
                    raise self._failure(f"exited with status {self._process.returncode}")
                self._reap()
                return False
        return True

    def _failure(self, what: str) -> KeyStoreUnavailable:
        text = self._text()
        if self._process is not None:
            self._process.kill()
        self._reap()
        return KeyStoreUnavailable("tpm.swtpm-start", f"swtpm: {what}; state in {self.state_dir}: {text}")

    def _text(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read(64 * 1024).decode(errors="replace").strip()[-1000:]

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


def _adjacent_pair() -> int:
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((_HOST, 0))
            port: int = first.getsockname()[1]
            try:
                second.bind((_HOST, port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _exchange(port: int, command: bytes, *, timeout: float) -> bytes:
    """Send one TPM command and return its response, at most 4096 bytes."""
    with socket.create_connection((_HOST, port), timeout) as channel:
        channel.settimeout(timeout)
        channel.sendall(command)
        answer = channel.recv(4096)
    if len(answer) < 10:
        raise ConnectionResetError("the TPM closed the channel without an answer")
    return answer
