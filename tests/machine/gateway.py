"""A virtual gateway: QEMU, the software TPM behind its kernel driver, its journal as it is written, a shell.

Nothing here sleeps: the guest's journal comes over a virtio port, and who waits, waits for an entry of it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = float(os.environ.get("MACHINE_PATIENCE", "240"))
"""Seconds that anything in the guest may take; a busy host emulates it slowly."""

STARTED = "cfdaad9fd7ba492dbeff5c9760cdacec"
ACTIVE = "f49ea1c3e244432abc1c40818520b54d"
OPERATOR = "21d5bdfa56d64d90abc0e03cf7f4ecd2"
FAILED = "695fccd598dd47d5be89672570538877"
BROKEN = "3305c73b38ab403f96a6803775c2ed17"
FATAL = (OPERATOR, BROKEN)
"""A person must act, or a worker broke: nothing that a test waits for comes after that."""
CLOCK_SET = "db69af0bcf0941ec82f875617b44158c"


@dataclass(frozen=True)
class Entry:
    """One entry of the guest's journal.

    ``guest``: seconds since its kernel started; ``host``: our clock when the entry arrived here.
    """

    guest: float
    host: float
    fields: dict[str, Any]

    def get(self, name: str) -> str:
        return str(self.fields.get(name, ""))


@dataclass(frozen=True)
class Done:
    """A command that ran in the guest."""

    status: int
    output: str


@dataclass(frozen=True)
class Hardware:
    """What a gateway is made of. *port*: of the host, where the guest's broker can be reached.

    *rtc*: what its clock says at power-on, instead of the time.
    *log*: a file into which each write and flush of the disk goes, for :mod:`machine.cache`.
    """

    disk: Path
    tpm: Path
    debian: Path
    interface: str = "tpm-crb"
    append: str = ""
    rtc: str = ""
    port: int = 0
    log: Path | None = None


class Gateway:
    """One power-on of *hardware*, in a ``with`` block: leaving it pulls the plug, if nobody shut it down."""

    def __init__(self, hardware: Hardware, directory: Path) -> None:
        self.hardware = hardware
        self.directory = directory
        self.entries: list[Entry] = []
        self.powered_on = 0.0
        self._news = threading.Condition()
        self._open = ExitStack()
        self._closed = False

    # --- power ---------------------------------------------------------------------------------------

    def __enter__(self) -> Gateway:
        try:
            self._power_on()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.pull_the_plug()
        self._open.close()

    def _power_on(self) -> None:
        for name in ("journal", "shell", "chip"):
            (self.directory / name).unlink(missing_ok=True)
        ports = {name: self._listen(name) for name in ("journal", "shell")}
        self._tpm = self._start_tpm()
        self.powered_on = time.monotonic()
        console = self._open.enter_context((self.directory / "console").open("wb"))
        self._qemu = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=console, stderr=console, cwd=self.directory
        )
        streams = {name: self._accept(listener) for name, listener in ports.items()}
        self._shell = self._open.enter_context(streams["shell"].makefile("rwb"))
        self._greeted = False
        self._reader = threading.Thread(target=self._read, args=(streams["journal"],), daemon=True)
        self._reader.start()

    def _command(self) -> list[str]:
        hardware = self.hardware
        forward = f",hostfwd=tcp:127.0.0.1:{hardware.port}-:8883" if hardware.port else ""
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", os.environ.get("MACHINE_ACCEL", "tcg")]
        command += ["-cpu", "max", "-smp", "1", "-m", "512", "-nodefaults", "-no-reboot", "-display", "none"]
        command += [
            "-serial",
            "stdio",
            "-rtc",
            f"base={hardware.rtc}",
            "-kernel",
            str(hardware.debian / "vmlinuz"),
        ]
        command += ["-initrd", str(hardware.debian / "initrd.gz")]
        command += ["-append", f"console=ttyS0 quiet mitigations=off {hardware.append}"]
        command += ["-blockdev", f"driver=file,node-name=file,filename={hardware.disk}"]
        if hardware.log is not None:
            command += ["-blockdev", f"driver=file,node-name=log,filename={hardware.log}"]
            command += [
                "-blockdev",
                "driver=blklogwrites,node-name=disk,file=file,log=log,log-sector-size=512",
            ]
        else:
            command += ["-blockdev", "driver=raw,node-name=disk,file=file"]
        command += ["-device", "virtio-blk-pci,drive=disk"]
        command += ["-netdev", f"user,id=lan{forward}", "-device", "virtio-net-pci,netdev=lan,romfile="]
        command += [
            "-object",
            "rng-random,id=chance,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,rng=chance",
        ]
        command += ["-chardev", "socket,id=tpm,path=chip", "-tpmdev", "emulator,id=tpm,chardev=tpm"]
        command += ["-device", f"{hardware.interface},tpmdev=tpm", "-device", "virtio-serial-pci"]
        for name in ("journal", "shell"):
            command += ["-chardev", f"socket,id={name},path={name}"]
            command += ["-device", f"virtserialport,chardev={name},name={name}"]
        return command

    def _start_tpm(self) -> subprocess.Popen[bytes]:
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.hardware.tpm}"]
        command += ["--ctrl", "type=unixio,path=chip", "--log", "file=chip.log"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=self.directory)
        while not (self.directory / "chip").exists():
            assert process.poll() is None, (self.directory / "chip.log").read_text()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        return process

    def pull_the_plug(self) -> None:
        """``kill -9``, of the TPM as well: it gets no TPM2_Shutdown."""
        self._qemu.kill()
        self._tpm.kill()
        self._qemu.wait()
        self._tpm.wait()

    def shut_down(self) -> None:
        """As a person does it. Fails if it does not end in order."""
        self.start("systemctl poweroff")
        assert self._qemu.wait(PATIENCE) == 0, self.console()
        self._tpm.wait(PATIENCE)  # QEMU tells it to end

    def cut_after(self, seconds: float) -> None:
        """Power goes away in so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._qemu.wait(seconds)
        assert self.running, f"QEMU ended by itself: {self.console()}"
        self.pull_the_plug()

    def start(self, command: str) -> None:
        """Begin a command in it, and go on; nothing can be asked afterwards."""
        self._greet()
        self._shell.write(command.encode() + b"\n")
        self._shell.flush()

    @property
    def running(self) -> bool:
        return self._qemu.poll() is None

    # --- what it says --------------------------------------------------------------------------------

    def console(self) -> str:
        """The last of what its kernel said, and its journal: for a failure's text."""
        said = (self.directory / "console").read_text(errors="replace")[-1500:]
        journal = "\n".join(f"{e.guest:8.2f} {e.get('MESSAGE')}" for e in self.entries[-40:])
        return f"{said}\n{journal}"

    def wait_for(self, what: str, wanted: Callable[[Entry], bool], *, start: int = 0) -> Entry:
        """The first journal entry, from number *start* on, that is *wanted*; fails when it does not come."""
        end = time.monotonic() + PATIENCE
        position = start
        with self._news:
            while True:
                while position < len(self.entries):
                    entry = self.entries[position]
                    if wanted(entry):
                        return entry
                    assert entry.get("MESSAGE_ID") not in FATAL, f"{what}: {self.console()}"
                    position += 1
                if self._closed or not self._news.wait(end - time.monotonic()):
                    raise AssertionError(f"{what}: did not come within {PATIENCE:.0f} s: {self.console()}")

    def message(self, identifier: str, *, start: int = 0) -> Entry:
        """The first entry of that kind."""
        return self.wait_for(identifier, lambda e: e.get("MESSAGE_ID") == identifier, start=start)

    def enrolled(self, generation: int = 1, *, start: int = 0) -> Entry:
        """The entry that says that the LDevID is active, in that generation or a later one."""
        return self.wait_for(
            "the LDevID",
            lambda e: e.get("MESSAGE_ID") == ACTIVE and int(e.get("HOLDFAST_GENERATION")) >= generation,
            start=start,
        )

    def settled(self, *, start: int = 0) -> Entry:
        """The entry that says that the LDevID is active and nothing is under way for it."""
        return self.wait_for(
            "rest",
            lambda e: e.get("MESSAGE").startswith("state: ") and e.get("MESSAGE").endswith(" ldevid active"),
            start=start,
        )

    def trouble(self) -> Entry:
        """The first entry of a step that failed."""
        return self.wait_for("trouble", lambda e: e.get("MESSAGE_ID") in {FAILED, OPERATOR})

    def unit_started(self, unit: str) -> Entry:
        """The entry that says that *unit* runs."""
        return self.wait_for(
            unit,
            lambda e: (
                e.get("UNIT") == unit
                and e.get("MESSAGE").startswith("Started ")
                and e.get("JOB_RESULT") == "done"
            ),
        )

    def run(self, command: str) -> Done:
        """A command in it, as root. Waits for the shell to be there."""
        self.start(command)
        answer = self._shell.readline().decode().split()
        assert answer, f"it did not answer to {command!r}: {self.console()}"
        return Done(
            int(answer[0]), base64.b64decode(answer[1] if answer[1:] else "").decode(errors="replace")
        )

    def _greet(self) -> None:
        if not self._greeted:
            assert self._shell.readline() == b"ready\n", self.console()
            self._greeted = True

    def ask(self, command: str) -> str:
        """The output of a command in it that must succeed."""
        done = self.run(command)
        assert done.status == 0, f"{command}: {done.output}\n{self.console()}"
        return done.output.strip()

    def holdfast(self, *arguments: str) -> dict[str, Any]:
        """What a command of ours says, as JSON."""
        told: dict[str, Any] = json.loads(self.ask(f"holdfast {' '.join(arguments)} --json"))
        return told

    # --- ports ---------------------------------------------------------------------------------------

    def _listen(self, name: str) -> socket.socket:
        listener = self._open.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(os.path.relpath(self.directory / name))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        return listener

    def _accept(self, listener: socket.socket) -> socket.socket:
        while True:
            listener.settimeout(0.5)
            try:
                stream, _ = listener.accept()
                break
            except TimeoutError:
                assert self.running, f"QEMU ended: {self.console()}"
        stream.settimeout(PATIENCE)
        return self._open.enter_context(stream)

    def _read(self, stream: socket.socket) -> None:
        stream.settimeout(None)
        with suppress(OSError), stream.makefile("rb") as lines:
            for line in lines:
                now = time.monotonic()
                with suppress(ValueError):  # the last line of a gateway that lost its power
                    fields = json.loads(line)
                    entry = Entry(int(fields["__MONOTONIC_TIMESTAMP"]) / 1e6, now, fields)
                    with self._news:
                        self.entries.append(entry)
                        self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()
