"""The software TPM as a child: starts, survives, resets, dies with its parent, and says what is wrong."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.wire.errors import KeyStoreUnavailable
from holdfast_factory import swtpm as swtpm_module
from holdfast_factory.chip import EK_CERTIFICATES, Chip
from holdfast_factory.swtpm import Swtpm

pytestmark = pytest.mark.tpm


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_two_answer_side_by_side_and_stop_leaves_neither_port_nor_zombie(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "a") as one, Swtpm(tmp_path / "b") as two:
        assert one.port != two.port
        children = [each._process.pid for each in (one, two) if each._process]
        for each in (one, two):
            assert each.tcti == f"swtpm:host=127.0.0.1,port={each.port}"
            with Chip(each.tcti) as chip:
                assert chip.transients() == 0
    assert _refused(one.port)
    assert _refused(two.port)
    assert len(children) == 2
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)  # reaped already


def test_state_and_port_outlive_a_stop_a_reset_and_a_power_cut(tmp_path: Path) -> None:
    with Swtpm(tmp_path) as tpm:
        before = tpm.tcti
        with Chip(tpm.tcti) as chip:
            chip.write_nv(0x01C90200, b"kept")
        tpm.restart()
        tpm.restart(orderly=False)
        tpm.stop()
        assert not tpm.running
        tpm.start()
        assert tpm.tcti == before
        with Chip(tpm.tcti) as chip:
            assert chip.read_nv(0x01C90200) == b"kept"


def test_taken_ports_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as data, socket.socket() as control:
        data.bind(("127.0.0.1", 0))
        data.listen()
        control.bind(("127.0.0.1", 0))
        control.listen()
        free = swtpm_module._adjacent_pair
        offers = iter([data.getsockname()[1], control.getsockname()[1] - 1])
        monkeypatch.setattr(swtpm_module, "_adjacent_pair", lambda: next(offers, None) or free())
        with Swtpm(tmp_path) as tpm, Chip(tpm.tcti) as chip:
            assert chip.transients() == 0
            assert next(offers, None) is None


def test_ek_certificates_are_manufactured_once_and_offline(tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    with Swtpm(tmp_path / "tpm", ek=True, ek_authority=authority) as tpm, Chip(tpm.tcti) as chip:
        first = [chip.read_nv(index) for index in EK_CERTIFICATES]
    assert any(first)
    assert (authority / "issuercert.pem").exists()
    with Swtpm(tmp_path / "tpm", ek=True, ek_authority=authority) as tpm, Chip(tpm.tcti) as chip:
        assert [chip.read_nv(index) for index in EK_CERTIFICATES] == first


def test_dies_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import sys; from pathlib import Path; from holdfast_factory.swtpm import Swtpm\n"
        "tpm = Swtpm(Path(sys.argv[1])); tpm.start()\n"
        "print(tpm._process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", child, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        watched = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            ended, _, _ = select.select([watched], [], [], 10)
            assert ended, "swtpm outlived the process that started it"
        finally:
            os.close(watched)


@pytest.mark.parametrize("tool", ["swtpm", "setpriv"])
def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    real = swtpm_module.shutil.which
    monkeypatch.setattr(swtpm_module.shutil, "which", lambda name: None if name == tool else real(name))
    with pytest.raises(KeyStoreUnavailable, match=r"is not installed: apt-get install") as caught:
        Swtpm(tmp_path).start()
    assert caught.value.code == "tpm.swtpm-missing"
    assert caught.value.detail.startswith(tool)


def test_a_broken_state_is_reported_in_the_words_of_swtpm(tmp_path: Path) -> None:
    (tmp_path / "tpm2-00.permall").write_bytes(b"torn")
    with pytest.raises(KeyStoreUnavailable) as caught:
        Swtpm(tmp_path).start()
    assert caught.value.code == "tpm.swtpm-start"
    assert str(tmp_path) in caught.value.detail


@pytest.mark.parametrize(
    ("tool", "script"),
    [
        ("swtpm_localca", "echo out of order >&2; exit 7"),
        ("swtpm_setup", 'echo half > "$4/tpm2-00.permall"; echo out of order >&2; exit 7'),
    ],
)
def test_a_failed_manufacture_is_quoted_and_leaves_no_half_made_chip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, script: str
) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / tool).write_text(f"#!/bin/sh\n{script}\n")
    (broken / tool).chmod(0o755)
    state = tmp_path / "tpm"
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{broken}:{os.environ['PATH']}")
        with pytest.raises(KeyStoreUnavailable, match="swtpm_setup failed") as caught:
            Swtpm(state, ek=True).start()
    assert caught.value.code == "tpm.ek"
    assert [p.name for p in state.iterdir()] == ["ek-authority"]
    with Swtpm(state, ek=True) as tpm, Chip(tpm.tcti) as chip:
        assert chip.ek_certificate()


def test_port_and_tcti_before_the_start_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreUnavailable) as caught:
        _ = Swtpm(tmp_path).tcti
    assert caught.value.code == "tpm.not-started"
