"""The contract of key stores, over a real TPM in both ways of storing."""

from __future__ import annotations

import pytest

from keys.contract import KeyStoreContract
from keys.tpm_home import TpmHome

pytestmark = pytest.mark.tpm


class TestWrapped(KeyStoreContract):
    @pytest.fixture
    def home(self, swtpm, tmp_path):
        return TpmHome(swtpm.tcti, tmp_path / "keys", "blob")


class TestPersistent(KeyStoreContract):
    @pytest.fixture
    def home(self, swtpm, tmp_path):
        return TpmHome(swtpm.tcti, tmp_path / "keys", "persistent")
