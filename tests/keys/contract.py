"""What every key store must do. A store's tests subclass :class:`KeyStoreContract` and give it a ``home``."""

from __future__ import annotations

import copy
import multiprocessing
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from holdfast.keys.api import KeyRef, KeySpec, KeyStore
from holdfast.keys.tlskey import surfacing, use_key
from holdfast.wire import cms, csr
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast.wire.model import KeyAlgorithm
from keys.pki import Pki, handshake, name, tls_server

PKI = Pki()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
DIGESTS = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


class Home(Protocol):
    """One piece of hardware. It must survive pickling: another process opens it too."""

    def open(self) -> KeyStore: ...

    def leftovers(self) -> tuple[int, ...]:
        """Handles of what stays loaded in the hardware though nobody holds it; empty if that cannot be."""
        ...


def sign_many(home: Home, identity: str, shared: KeyRef, rounds: int, results) -> None:
    """In another process: make a key, use it and a shared one in turns, and say how it went."""
    store = home.open()
    try:
        own = store.generate(store.plan(identity, 0), KeySpec()).signer()
        other = store.load(shared).signer()
        for n in range(rounds):
            for key in (own, other):
                key.public_key().verify(
                    key.sign(b"%d" % n, ec.ECDSA(hashes.SHA256())), b"%d" % n, ec.ECDSA(hashes.SHA256())
                )
        results.put("done")
    except Exception as error:
        results.put(repr(error))
        raise
    finally:
        store.close()


class KeyStoreContract:
    """Tests over ``home``; identities ``ldevid`` and ``second`` must be known to the store."""

    @pytest.fixture
    def store(self, home: Home):
        store = home.open()
        yield store
        store.close()
        assert home.leftovers() == ()

    @pytest.fixture(params=list(KeyAlgorithm), ids=lambda a: a.value)
    def key(self, request, store: KeyStore):
        return store.generate(store.plan("ldevid", 1), KeySpec(request.param))

    def test_plan_is_pure_and_tells_generations_apart(self, home, store):
        assert store.plan("ldevid", 1) == home.open().plan("ldevid", 1)
        assert len({store.plan("ldevid", 1), store.plan("ldevid", 2), store.plan("second", 1)}) == 3
        assert store.refs() == frozenset()

    def test_openssl_verifies_the_csr(self, key, tmp_path: Path):
        (tmp_path / "csr.der").write_bytes(csr.build(key.signer(), name("device")))
        done = subprocess.run(
            ["openssl", "req", "-inform", "DER", "-in", tmp_path / "csr.der", "-verify", "-noout"],
            capture_output=True,
            check=False,
            text=True,
        )
        assert "verify OK" in done.stdout + done.stderr, done.stderr
        assert done.returncode == 0

    def test_signatures_of_every_digest(self, key):
        signer = key.signer()
        for digest in DIGESTS:
            state = hashes.Hash(digest)
            state.update(b"data")
            hashed = state.finalize()
            for data, algorithm in ((b"data", digest), (hashed, utils.Prehashed(digest))):
                if isinstance(signer, ec.EllipticCurvePrivateKey):
                    signature = signer.sign(data, ec.ECDSA(algorithm))
                    signer.public_key().verify(signature, b"data", ec.ECDSA(digest))
                    continue
                for scheme in (
                    padding.PKCS1v15(),
                    padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH),
                ):
                    signature = signer.sign(data, scheme, algorithm)
                    signer.public_key().verify(signature, b"data", scheme, digest)

    def test_openssl_verifies_cms(self, key, tmp_path: Path):
        chain = PKI.chain(key.signer().public_key())
        der = cms.sign(
            b"payload",
            "1.2.840.113549.1.7.1",
            key.signer(),
            chain[0],
            chain[1:],
            signing_time=datetime(2026, 1, 1, tzinfo=UTC),
        )
        (tmp_path / "cms.der").write_bytes(der)
        (tmp_path / "root.pem").write_bytes(PKI.root.public_bytes(serialization.Encoding.PEM))
        done = subprocess.run(
            [
                *("openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "cms.der"),
                *("-CAfile", tmp_path / "root.pem", "-purpose", "any"),
            ],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"payload"

    @pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.name)
    def test_tls_client_authentication(self, key, version, tmp_path):
        chain = PKI.chain(key.signer().public_key())
        context = PKI.client_context()
        use_key(context, chain, key.signer())
        with tls_server(PKI.server_context(tmp_path, version)) as server, surfacing():
            handshake(context, server.port)
        assert server.peers == [chain[0].public_bytes(serialization.Encoding.DER)]

    def test_rsa_decryption(self, store):
        key = store.generate(store.plan("ldevid", 1), KeySpec(KeyAlgorithm.RSA2048, decrypt=True)).signer()
        assert isinstance(key, rsa.RSAPrivateKey)
        for scheme in (
            padding.PKCS1v15(),
            padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
        ):
            ciphertext = key.public_key().encrypt(b"a secret", scheme)
            assert key.decrypt(ciphertext, scheme) == b"a secret"
            for bad in (b"\x01" * 256, b"short", b""):
                # Implicit rejection (OpenSSL 3.2, so newer software TPMs): bad PKCS #1 v1.5 padding gives
                # bytes that mean nothing, so that nobody learns from the error.
                implicit = isinstance(scheme, padding.PKCS1v15) and len(bad) == 256
                try:
                    nonsense = key.decrypt(bad, scheme)
                except KeyStoreError as error:
                    assert error.code == "key.decrypt-failed"  # noqa: PT017 - no error may be right, too
                else:
                    assert implicit
                    assert nonsense != b"a secret"
        assert key.decrypt(ciphertext, scheme) == b"a secret", "a failure leaves the key usable"

    def test_an_ec_key_that_shall_decrypt_is_refused_before_it_is_made(self, store):
        with pytest.raises(KeyStoreError) as caught:
            store.generate(store.plan("ldevid", 1), KeySpec(KeyAlgorithm.P256, decrypt=True))
        assert caught.value.code == "key.cannot-decrypt"
        assert store.refs() == frozenset()

    def test_nothing_is_exported(self, key):
        signer = key.signer()
        with pytest.raises(KeyStoreError) as caught:
            signer.private_numbers()
        assert caught.value.code == "key.not-exportable"
        with pytest.raises(KeyStoreError) as caught:
            signer.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        assert caught.value.code == "key.not-exportable"
        assert copy.copy(signer) is signer
        assert copy.deepcopy([signer])[0] is signer

    def test_a_key_survives_a_restart_of_the_agent(self, home, key):
        again = home.open()
        try:
            assert again.refs() == frozenset({key.ref})
            signer = again.load(key.ref).signer()
            assert signer.public_key() == key.signer().public_key()
            csr.build(signer, name("device"))
        finally:
            again.close()

    def test_generate_replaces_what_is_there(self, store):
        ref = store.plan("ldevid", 1)
        first = store.generate(ref, KeySpec()).signer().public_key()
        second = store.generate(ref, KeySpec()).signer().public_key()
        assert first != second
        assert store.load(ref).signer().public_key() == second
        assert store.refs() == frozenset({ref})

    def test_destroy(self, home, store):
        keep, gone = store.plan("ldevid", 1), store.plan("ldevid", 2)
        kept = store.generate(keep, KeySpec())
        store.generate(gone, KeySpec())
        assert store.refs() == frozenset({keep, gone})
        for _ in range(2):
            store.destroy(gone)
        for reader in (store, home.open()):
            with pytest.raises(KeyNotFound):
                reader.load(gone)
            assert reader.refs() == frozenset({keep})
            reader.close() if reader is not store else None
        csr.build(kept.signer(), name("device"))

    def test_keys_used_in_turns(self, store):
        keys = [store.generate(store.plan("ldevid", n), KeySpec()).signer() for n in (1, 2)]
        for _ in range(3):
            for key in keys:
                csr.parse(csr.build(key, name("device")))

    def test_threads_share_a_store(self, store):
        keys = [store.generate(store.plan(i, 0), KeySpec()).signer() for i in ("ldevid", "second")]

        def work(n: int) -> None:
            csr.parse(csr.build(keys[n % 2], name(f"device {n}")))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(24)))

    def test_two_processes(self, home, store):
        shared = store.generate(store.plan("ldevid", 7), KeySpec()).ref
        store.close()
        spawn = multiprocessing.get_context("spawn")
        results = spawn.Queue()
        workers = [
            spawn.Process(target=sign_many, args=(home, identity, shared, 15, results))
            for identity in ("ldevid", "second")
        ]
        for worker in workers:
            worker.start()
        said = [results.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(30)
        results.close()
        results.join_thread()
        assert said == ["done", "done"]

    def test_nothing_stays_loaded_after_an_exception(self, home):
        def attempt() -> None:
            store = home.open()
            try:
                key = store.generate(store.plan("ldevid", 1), KeySpec()).signer()
                csr.build(key, name("device"))
                raise ZeroDivisionError
            finally:
                store.close()

        with pytest.raises(ZeroDivisionError):
            attempt()
        assert home.leftovers() == ()

    def test_a_closed_store_says_so(self, home):
        store = home.open()
        key = store.generate(store.plan("ldevid", 1), KeySpec()).signer()
        store.close()
        store.close()
        with pytest.raises(KeyStoreError) as caught:
            key.sign(b"data", ec.ECDSA(hashes.SHA256()))
        assert caught.value.code == "key.closed"

    @pytest.mark.parametrize(
        "ref",
        ["", "tpm2:", "tpm2:blob:../../etc/passwd-1", "tpm2:blob:a/b-1", "tpm2:0x80000000", "pkcs11:", "x"],
    )
    def test_references_of_nothing(self, store, ref):
        for operation in (store.load, store.destroy):
            with pytest.raises(KeyStoreError):
                operation(KeyRef(ref))

    @pytest.mark.parametrize("identity", ["", "../x", "A", "a b", "a/b", "x" * 80])
    def test_identities_that_name_no_key(self, store, identity):
        with pytest.raises(KeyStoreError):
            store.plan(identity, 1)
