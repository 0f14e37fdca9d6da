"""The contract of key stores, over SoftHSM2."""

from __future__ import annotations

import pytest

from holdfast_factory.softhsm import make_token
from keys.contract import KeyStoreContract
from keys.token_home import PIN, TokenHome, need

pytestmark = pytest.mark.pkcs11


class TestSoftHsm(KeyStoreContract):
    @pytest.fixture
    def home(self, tmp_path):
        need("softhsm2-util:softhsm2")
        token = make_token(tmp_path / "token", "gateway", PIN)
        return TokenHome(token.module, token.uri, tmp_path / "keys", token.environment)
