"""A throw-away Debian machine with a real systemd as its first process, and Holdfast installed in it.

It is entered with systemd-nspawn, needs root, shares this host's network (so servers and software TPM out
here are reachable on loopback), and leaves nothing behind. ``scripts/machine.sh`` makes what it starts from.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from proofs.runner import ROOT, FailedError

PATIENCE: Final = 120.0
_POLL: Final = 0.1
CGROUPS: Final = Path("/sys/fs/cgroup")


def until(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true value of *condition*. Raises FailedError that says *what* did not happen."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise FailedError(f"not within {seconds:.0f} s: {what}")
        time.sleep(_POLL)
    return value


class Machine:
    """Use it in a ``with`` block: installed on entry, running after :meth:`boot`."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def __enter__(self) -> Self:
        try:
            self._install()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # --- before it runs ------------------------------------------------------------------------------

    def _install(self) -> None:
        where = subprocess.run(
            [ROOT / "scripts/machine.sh", "--where"], check=True, capture_output=True, text=True
        )
        self._lay(Path(where.stdout.strip()))
        self._wheel()
        _run(ROOT / "systemd/install.sh", "--link", "/opt/holdfast/bin", self.root)
        _run("chroot", self.root, "systemd-sysusers")
        _run("chroot", self.root, "journalctl", "--update-catalog")

    def _lay(self, base: Path) -> None:
        """A root of our own over *base*, which is not written to."""
        self.directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-")))
        layers, self.root = self.directory / "layers", self.directory / "root"
        for directory in (layers, self.root):
            directory.mkdir()
        self._mount("-t", "tmpfs", "tmpfs", layers)
        upper, work = layers / "upper", layers / "work"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir={base},upperdir={upper},workdir={work}"
        self._mount("-t", "overlay", "-o", options, "overlay", self.root)

    def _mount(self, *arguments: str | Path) -> None:
        _run("mount", *arguments)
        self._open.callback(subprocess.run, ["umount", "-l", arguments[-1]], check=False)

    def _wheel(self) -> None:
        """Install this checkout as a device gets it: from a wheel."""
        home = self.root / "opt/wheels"
        home.mkdir()
        _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", home, ROOT)
        (wheel,) = home.iterdir()
        pip = ("/opt/holdfast/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
        _run("chroot", self.root, *pip, f"/opt/wheels/{wheel.name}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in the machine, running or not."""
        inside = Path(f"/proc/{self.leader}/root") if self.leader else self.root
        target = inside / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def read(self, path: str) -> str:
        """A file of the running machine; "" if there is none."""
        try:
            return Path(f"/proc/{self.leader}/root/{path.lstrip('/')}").read_text()
        except OSError:
            return ""

    def before(self, *command: str) -> str:
        """The output of a command before the machine runs."""
        return _run("chroot", self.root, *command)

    # --- while it runs -------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start it; returns when its manager answers."""
        groups = self._cgroups()
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--machine=holdfast-proof"]
        command += [f"--directory={self.root}", "--console=pipe", "--kill-signal=SIGRTMIN+3"]
        command += ["--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        command += ["--boot", "systemd.log_target=journal"]
        # Its control groups must be its own, and no root of anybody else's.
        enter = "".join(f"echo $$ > {shlex.quote(str(g / 'cgroup.procs'))}; " for g in groups)
        console = self._open.enter_context((self.directory / "console").open("wb"))
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"{enter} exec {shlex.join(command)}"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        self._open.callback(self._power_off)
        self.leader = until(f"the machine starts: {self._console()}", self._find_leader)
        until(
            "its manager answers", lambda: self.ask("systemctl", "is-system-running") not in {"", "offline"}
        )

    def _cgroups(self) -> list[Path]:
        hierarchies = (
            [CGROUPS]
            if (CGROUPS / "cgroup.controllers").exists()
            else [CGROUPS / name for name in ("unified", "systemd") if (CGROUPS / name).is_dir()]
        )
        groups = [h / f"holdfast-proof-{os.getpid()}" for h in hierarchies]
        for group in groups:
            group.mkdir(exist_ok=True)
            self._open.callback(_remove_cgroup, group)
        return groups

    def _console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")[-500:]

    def _find_leader(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailedError(f"the machine did not start: {self._console()}")
        todo = [self._process.pid]
        while todo:
            pid = todo.pop()
            try:
                status = dict(
                    line.split(":\t", 1)
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                    if ":\t" in line
                )
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                continue
            if status["Name"] == "systemd" and status["NSpid"].split()[-1] == "1":
                return pid
            todo += map(int, children)
        return 0

    def _power_off(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                if self.leader:
                    os.kill(self.leader, signal.SIGKILL)
                self._process.kill()
                self._process.wait()

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command in the running machine, as root."""
        enter = [
            "nsenter",
            f"--target={self.leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--root",
            "--wd=/",
        ]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        whole = [*enter, "env", "-i", f"PATH={path}", "LC_ALL=C.UTF-8", "TERM=dumb", *command]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise FailedError(f"{shlex.join(command)}: {done.stdout} {done.stderr}")
        return done

    def ask(self, *command: str) -> str:
        """The output of a command in it."""
        return self.run(*command).stdout.strip()

    def show(self, unit: str, prop: str) -> str:
        """One property of a unit."""
        return self.ask("systemctl", "show", "--property", prop, "--value", unit)

    def host_pid(self, unit: str) -> int:
        """The main process of a unit, as this host counts."""
        inside = self.show(unit, "MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            ids = next((line.split()[1:] for line in text.splitlines() if line.startswith("NSpid:")), [])
            if len(ids) > 1 and ids[-1] == inside and _same_namespace(status.parent, self.leader):
                return int(status.parent.name)
        raise FailedError(f"{unit} has no process {inside}")


def pss(pid: int) -> float:
    """MiB that a process costs, shared pages in their part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise FailedError(f"process {pid} has no Pss")


def fit() -> str:
    """Why no machine can run here; "" if one can."""
    if os.geteuid() != 0:
        return "a machine is entered as root"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is missing: install systemd-container"
    return ""


def _same_namespace(process: Path, leader: int) -> bool:
    try:
        return (process / "ns/pid").readlink() == Path(f"/proc/{leader}/ns/pid").readlink()
    except OSError:
        return False


def _remove_cgroup(group: Path) -> None:
    for directory in sorted(group.rglob("*/"), reverse=True):
        if directory.is_dir():
            directory.rmdir()
    group.rmdir()


def _run(*command: str | Path) -> str:
    words: Sequence[str] = [str(c) for c in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FailedError(f"{shlex.join(words)}: {done.stdout} {done.stderr}")
    return done.stdout
