"""The virtual gateway's disk: the guest's Debian with this checkout's Holdfast in it, as a product ships.

Building needs root (an overlay is mounted); a copy of it for one test does not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from machine.programs import run

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).parent / "guest"
MIB = 1 << 20
SIZE = 640 * MIB

_LAYOUT = {
    "watch.service": "usr/lib/systemd/system",
    "shell.service": "usr/lib/systemd/system",
    "slow-network.service": "usr/lib/systemd/system",
    "watch": "usr/lib/gateway",
    "shell": "usr/lib/gateway",
    "slow-network": "usr/lib/gateway",
    "70-gateway.rules": "usr/lib/udev/rules.d",
    "lan.network": "etc/systemd/network",
    "mosquitto.conf": "etc/mosquitto",
}
# Of systemd/examples, as docs/service.md tells.
_EXAMPLES = {
    "deploy-group.conf": "etc/systemd/system/holdfast.service.d",
    "mosquitto.service.conf": "etc/systemd/system/mosquitto.service.d",
    "tpm2-consumer.conf": "etc/systemd/system/mosquitto.service.d",
    "openssl-tpm2.conf": "etc/holdfast",
}


def debian() -> Path:
    """The directory of the guest's Debian: built now, if it is not yet."""
    return Path(run(ROOT / "scripts/guest.sh").strip())


def build(target: Path, base: Path, device: Path, hosts: str) -> None:
    """Write the disk image *target*: *base*, Holdfast, and what the factory shipped in *device*.

    *hosts* is the last line of ``/etc/hosts``.
    """
    with ExitStack() as stack:
        root = _overlay(stack, base / "root")
        _product(root)
        examples = root / "usr/share/doc/holdfast/examples"
        for directory, places in ((PARTS, _LAYOUT), (examples, _EXAMPLES)):
            for name, place in places.items():
                (root / place).mkdir(parents=True, exist_ok=True)
                shutil.copy(directory / name, root / place)
        for name in ("idevid-chain.pem", "manufacturer-anchors.pem"):
            (root / "etc/holdfast" / name).write_bytes((device / name).read_bytes())
        (root / "etc/hostname").write_text("gateway\n")
        with (root / "etc/hosts").open("a") as file:
            file.write(hosts + "\n")
        for command in (
            ("systemd-sysusers",),
            ("journalctl", "--update-catalog"),
            ("systemctl", "preset", "holdfast.service", "holdfast.socket", "holdfast-step.timer"),
            ("systemctl", "enable", "systemd-networkd.service"),
            ("systemctl", "disable", "systemd-networkd-wait-online.service"),
            ("systemctl", "enable", "holdfast-identity@ldevid.path"),
            ("systemctl", "add-wants", "holdfast-identity@ldevid.target", "mosquitto.service"),
        ):
            run("chroot", root, *command)
        run("mke2fs", "-q", "-t", "ext4", "-d", root, "-L", "root", "-m", "0", target, f"{SIZE // MIB}M")


def copy(source: Path, target: Path) -> None:
    """A disk of its own for one gateway."""
    run("cp", "--sparse=always", source, target)


def write(disk: Path, path: str, text: str, mode: int = 0o644) -> None:
    """Put a file into a disk that no gateway runs from."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        commands = f"rm {path}\nwrite {file.name} {path}\nsif {path} mode 0{0o100000 | mode:o}\n"
        subprocess.run(
            ["debugfs", "-w", "-f", "-", disk], input=commands, text=True, capture_output=True, check=True
        )
    assert read(disk, path) == text


def read(disk: Path, path: str) -> str:
    """A file of a disk that no gateway runs from."""
    return run("debugfs", "-R", f"cat {path}", disk)


def check(disk: Path) -> None:
    """Fail unless the filesystem is clean as it stands."""
    run("e2fsck", "-f", "-n", disk)


def recover(disk: Path) -> None:
    """Do as a boot does after a power cut: replay the journal. Fail if that is not enough."""
    done = subprocess.run(["e2fsck", "-p", disk], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    check(disk)


def _overlay(stack: ExitStack, base: Path) -> Path:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-")))
    layers, root = directory / "layers", directory / "root"
    for each in (layers, root):
        each.mkdir()
    _mount(stack, "-t", "tmpfs", "tmpfs", layers)
    for name in ("upper", "work"):
        (layers / name).mkdir()
    _mount(
        stack,
        "-t",
        "overlay",
        "-o",
        f"lowerdir={base},upperdir={layers}/upper,workdir={layers}/work",
        "overlay",
        root,
    )
    return root


def _mount(stack: ExitStack, *arguments: str | Path) -> None:
    run("mount", *arguments)
    stack.callback(run, "umount", arguments[-1])


def _product(root: Path) -> None:
    """Install this checkout as a device gets it: from a wheel, and by the script that places its units."""
    wheels = root / "opt/wheels"
    wheels.mkdir()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, ROOT)
    (wheel,) = wheels.iterdir()
    pip = ("/opt/holdfast/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run("chroot", root, *pip, f"/opt/wheels/{wheel.name}")
    shutil.rmtree(wheels)
    run(ROOT / "systemd/install.sh", "--link", "/opt/holdfast/bin", root)
