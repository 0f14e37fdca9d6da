"""The contract of key stores, over SoftHSM2 and over a TPM behind tpm2-pkcs11."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

from holdfast.keys.api import KeySpec
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import KeyNotFound
from holdfast_factory.softhsm import make_token
from keys.contract import PKI, KeyStoreContract
from keys.token_home import PIN, TokenHome, need
from keys.tpm2_token import Tpm2Token, module, tpm2_token
from keys.tpm_home import transient

pytestmark = pytest.mark.pkcs11


class TokenContract(KeyStoreContract):
    """What every token store does besides."""

    def test_a_certificate_stands_beside_its_key_and_goes_with_it(self, home, store):
        kept, gone = (store.generate(store.plan("ldevid", n), KeySpec()) for n in (1, 2))
        for key in (kept, gone):
            for _ in range(2):
                store.hold_certificate(key.ref, PKI.chain(key.signer().public_key())[0])
        for ref in (gone.ref, kept.ref):
            beside = store.idevid_certificate(parse(ref))
            assert beside.public_key() == store.load(ref).signer().public_key()
            store.destroy(ref)
            with pytest.raises(KeyNotFound):
                store.idevid_certificate(parse(ref))
        assert store.refs() == frozenset()


class TestSoftHsm(TokenContract):
    @pytest.fixture
    def home(self, tmp_path):
        need("softhsm2-util:softhsm2")
        token = make_token(tmp_path / "token", "gateway", PIN)
        return TokenHome(token.module, token.uri, tmp_path / "keys", token.environment)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm2Token]:
    need("tpm2_ptool:libtpm2-pkcs11-tools", "tpm2-abrmd:tpm2-abrmd", "dbus-daemon:dbus-daemon")
    with tpm2_token(tmp_path_factory.mktemp("tpm2"), "gateway", PIN) as made:
        yield made


class TestTpm2Pkcs11(TokenContract):
    """One TPM and one token for all tests, emptied after each: making them costs more than most tests."""

    @pytest.fixture
    def home(self, token: Tpm2Token, tmp_path, monkeypatch):
        for name in token.environment:
            monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards
        loaded = functools.partial(transient, token.tpm)
        home = TokenHome(module(), "pkcs11:token=gateway", tmp_path / "keys", token.environment, loaded)
        yield home
        with home.open() as store:
            for ref in store.refs():
                store.destroy(ref)
        assert home.leftovers() == ()
