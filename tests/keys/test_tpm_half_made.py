"""A key whose maker was killed between the TPM's answer and its file, on a TPM without a resource manager."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tpm2_pytss import ESAPI, TPM2_CAP

from holdfast.keys.api import KeySpec
from holdfast.keys.key_files import KeyFiles
from holdfast.keys.tpm import TpmStore
from holdfast_factory.swtpm import Swtpm

pytestmark = pytest.mark.tpm


def loaded(tcti: str) -> int:
    with ESAPI(tcti) as esapi:
        _, data = esapi.get_capability(TPM2_CAP.HANDLES, 0x80000000, 16)
        return sum(1 for h in data.data.handles if h >> 24 == 0x80)


def die_before_the_file(tcti: str, directory: Path) -> None:
    """Make a key in a child that is killed when it would write the wrapped key."""
    pid = os.fork()
    if pid == 0:
        KeyFiles.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment,return-value]
        store = TpmStore(tcti, directory)
        store.generate(store.plan("ldevid", 1), KeySpec())
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_destroying_the_planned_key_takes_the_half_made_one_out_of_the_tpm(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as tpm:
        die_before_the_file(tpm.tcti, tmp_path / "keys")
        assert loaded(tpm.tcti) == 1
        with TpmStore(tpm.tcti, tmp_path / "keys") as store:
            assert store.refs() == frozenset()
            store.destroy(store.plan("ldevid", 1))
        assert loaded(tpm.tcti) == 0


def test_the_loaded_key_of_another_file_is_spared(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as tpm, TpmStore(tpm.tcti, tmp_path / "keys") as other:
        other.generate(other.plan("other", 1), KeySpec())
        with TpmStore(tpm.tcti, tmp_path / "keys") as store:
            store.destroy(store.plan("ldevid", 1))
        assert loaded(tpm.tcti) == 1


def test_many_such_deaths_do_not_fill_the_tpm(tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as tpm:
        for _ in range(5):
            die_before_the_file(tpm.tcti, tmp_path / "keys")
            with TpmStore(tpm.tcti, tmp_path / "keys") as store:
                store.destroy(store.plan("ldevid", 1))
        with TpmStore(tpm.tcti, tmp_path / "keys") as store:
            store.generate(store.plan("ldevid", 1), KeySpec())
            assert store.refs() == {store.plan("ldevid", 1)}
