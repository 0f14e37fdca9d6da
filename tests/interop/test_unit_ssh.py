"""A unit behind OpenSSH's own server: a Debian root that holds Python and nothing of ours."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.chips import Maker
from factory.test_tpm_unit import whole
from holdfast.wire.errors import KeyStoreUnavailable
from holdfast_factory.places import open_unit
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.tpm_unit import TpmUnit
from interop.est_peers import missing, peers_directory
from tools import need

pytestmark = [pytest.mark.interop, pytest.mark.tpm]


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def chip(maker: Maker) -> Iterator[Swtpm]:
    with maker.chip("unit") as running:
        yield running


class Sshd:
    """sshd on loopback, started for each connection as inetd would: no port is picked that might be taken."""

    def __init__(self, root: Path, inside: str) -> None:
        self._command = ["chroot", str(root), "/usr/sbin/sshd", "-i", "-e", "-f", f"{inside}/sshd_config"]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._children: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client:
                    self._children.append(
                        subprocess.Popen(
                            self._command, stdin=client, stdout=client, stderr=subprocess.DEVNULL
                        )
                    )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for child in self._children:
            child.wait(10)


@pytest.fixture(scope="module")
def ssh_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration of the ssh client that calls the unit ``unit``."""
    root = peers_directory() / "trixie-unit"
    if not (root / "usr/sbin/sshd").exists() or os.geteuid() != 0:
        missing("trixie-unit, an SSH server in a throw-away Debian root")
    keygen = need("ssh-keygen", "openssh-client")
    home = tmp_path_factory.mktemp("ssh")
    inside = f"/tmp/holdfast-{secrets.token_hex(8)}"
    outside = root / inside[1:]
    outside.mkdir(mode=0o700)
    for key in (home / "client", outside / "host"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (outside / "authorized").write_text((home / "client.pub").read_text())
    (outside / "sshd_config").write_text(
        f"HostKey {inside}/host\nAuthorizedKeysFile {inside}/authorized\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel ERROR\n"
    )
    (root / "run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    server = Sshd(root, inside)
    host = (outside / "host.pub").read_text()
    (home / "known").write_text(f"[127.0.0.1]:{server.port} {host}")
    config = home / "config"
    config.write_text(
        f"Host unit\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  IdentityFile {home}/client\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {home}/known\n  StrictHostKeyChecking yes\n"
    )
    try:
        yield config
    finally:
        server.close()
        shutil.rmtree(outside)


def test_whole_flow_over_ssh(maker: Maker, chip: Swtpm, ssh_config: Path) -> None:
    opened = open_unit(f"ssh:unit?config={ssh_config}&tpm=tcp:127.0.0.1:{chip.port}")
    assert isinstance(opened, TpmUnit)
    try:
        whole(opened, TpmExaminer(maker.roots))
    finally:
        opened.close()
    assert opened._link.round_trips == 12  # type: ignore[attr-defined]


def test_unknown_host_key_is_not_talked_to(chip: Swtpm, ssh_config: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "config"
    stranger.write_text(ssh_config.read_text().replace("/known", "/unknown"))
    with pytest.raises(KeyStoreUnavailable) as caught:
        open_unit(f"ssh:unit?config={stranger}&tpm=tcp:127.0.0.1:{chip.port}")
    assert caught.value.code == "factory.unit-gone"
