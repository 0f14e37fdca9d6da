"""What is particular to the TPM store: budgets, faults, references, foreign tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss import ESAPI, ESYS_TR, TSS2_Exception
from tpm2_pytss.tsskey import TSSPrivKey

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tlskey import surfacing, use_key
from holdfast.keys.tpm import SRK, TpmStore
from holdfast.wire import csr
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable, Retry
from holdfast.wire.model import KeyAlgorithm
from keys.contract import PKI, VERSIONS
from keys.pki import handshake, name, tls_server
from keys.tpm_home import TpmHome, transient

pytestmark = pytest.mark.tpm

REF = KeyRef("tpm2:blob:ldevid-1")
ECDSA = ec.ECDSA(hashes.SHA256())


def sign(key) -> None:
    signer = key.signer()
    signer.public_key().verify(signer.sign(b"data", ECDSA), b"data", ECDSA)


def commands(meter) -> list[str]:
    return [c.name + (f" {c.rc:#x}" if c.rc else "") for c in meter.take()]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(meter, directory):
    with TpmStore(meter.tcti, directory) as store:
        yield store


@pytest.fixture
def provisioned(meter, directory):
    """The storage root key is there, as on any device after its first boot; the meter stands at zero."""
    with TpmStore(meter.tcti, directory) as store:
        store.generate(store.plan("warm-up", 0), KeySpec())
        store.destroy(store.plan("warm-up", 0))
    meter.take()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.name)
def test_budget_of_a_new_key_a_csr_and_a_handshake(meter, provisioned, directory, version, tmp_path):
    with TpmStore(meter.tcti, directory) as store:
        key = store.generate(REF, KeySpec()).signer()
        csr.build(key, name("device"))
        chain = PKI.chain(key.public_key())
        context = PKI.client_context()
        use_key(context, chain, key)
        with tls_server(PKI.server_context(tmp_path, version)) as server, surfacing():
            handshake(context, server.port)
        assert len(server.peers) == 1
    assert commands(meter) == ["ReadPublic", "CreateLoaded", "Sign", "Sign", "FlushContext"]


def test_budget_of_a_persistent_key_in_a_fresh_process(meter, directory, tmp_path):
    with TpmStore(meter.tcti, directory, storage="persistent") as store:
        ref = store.generate(store.plan("ldevid", 1), KeySpec()).ref
    meter.take()
    with TpmStore(meter.tcti, directory) as store:
        key = store.load(ref).signer()
        context = PKI.client_context()
        use_key(context, PKI.chain(key.public_key()), key)
        with tls_server(PKI.server_context(tmp_path, VERSIONS[1])) as server, surfacing():
            handshake(context, server.port)
    assert commands(meter) == ["ReadPublic", "Sign"]


def test_plan_refs_and_open_touch_no_hardware(directory):
    store = open_store(TpmSettings("swtpm:host=127.0.0.1,port=1", directory))
    assert store.plan("ldevid", 3) == "tpm2:blob:ldevid-3"
    assert store.refs() == frozenset()
    store.close()


def test_one_read_of_the_root_key_a_process(meter, provisioned, store):
    for generation in range(3):
        store.generate(store.plan("ldevid", generation), KeySpec())
        store.load(store.plan("ldevid", generation))
    assert commands(meter).count("ReadPublic") == 1


def test_few_keys_stay_loaded(swtpm, directory):
    for slots in (1, 2):
        with TpmStore(swtpm.tcti, directory, slots=slots) as store:
            keys = [store.generate(store.plan("ldevid", n), KeySpec()) for n in range(4)]
            for key in (*keys, *reversed(keys)):
                sign(key)
                assert len(transient(swtpm.tcti)) <= slots
        assert transient(swtpm.tcti) == ()


def test_a_chip_without_create_loaded(meter, provisioned, store, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise TSS2_Exception(0x143)

    monkeypatch.setattr(ESAPI, "create_loaded", refuse)
    for generation in (1, 2):
        sign(store.generate(store.plan("ldevid", generation), KeySpec()))
    assert commands(meter) == [
        "ReadPublic",
        *("Create", "Load", "Sign"),
        "FlushContext",
        *("Create", "Load", "Sign"),
    ]
    assert not store._wrapped._root._create_loaded, "it is asked once only"


# Authorisation


def test_right_wrong_and_missing_authorisation(meter, directory):
    with TpmStore(meter.tcti, directory, auth=lambda: b"right") as store:
        sign(store.generate(REF, KeySpec()))
    with TpmStore(meter.tcti, directory, auth=lambda: b"right") as store:
        sign(store.load(REF))
    meter.take()
    with TpmStore(meter.tcti, directory, auth=lambda: b"Geheim") as store:
        key = store.load(REF)
        with pytest.raises(KeyLocked) as caught:
            sign(key)
        assert caught.value.code == "key.auth-failed"
        assert caught.value.retry is Retry.OPERATOR
        assert "Geheim" not in str(caught.value.diagnostics())
    assert [c for c in commands(meter) if c.startswith("Sign")] == ["Sign 0x9a2"], "tried exactly once"
    with TpmStore(meter.tcti, directory) as store:
        with pytest.raises(KeyLocked) as caught:
            store.load(REF)
        assert caught.value.code == "key.auth-missing"
    assert commands(meter) == [], "the TPM is not even asked"


def test_keys_do_not_count_towards_the_lockout(swtpm, directory):
    with TpmStore(swtpm.tcti, directory, auth=lambda: b"right") as store:
        store.generate(REF, KeySpec())
    for _ in range(6):
        with TpmStore(swtpm.tcti, directory, auth=lambda: b"wrong") as store, pytest.raises(KeyLocked):
            sign(store.load(REF))
    with TpmStore(swtpm.tcti, directory, auth=lambda: b"right") as store:
        sign(store.load(REF))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.name)
def test_a_locked_key_comes_out_of_the_handshake(swtpm, directory, version, tmp_path):
    with TpmStore(swtpm.tcti, directory, auth=lambda: b"right") as store:
        store.generate(REF, KeySpec())
    with TpmStore(swtpm.tcti, directory, auth=lambda: b"wrong") as store:
        key = store.load(REF).signer()
        context = PKI.client_context()
        use_key(context, PKI.chain(key.public_key()), key)
        with (
            tls_server(PKI.server_context(tmp_path, version)) as server,
            pytest.raises(KeyLocked),
            surfacing(),
        ):
            handshake(context, server.port)


def test_authorisation_of_a_persistent_key(swtpm, directory):
    with TpmStore(swtpm.tcti, directory, storage="persistent", auth=lambda: b"right") as store:
        ref = store.plan("ldevid", 1)
        sign(store.generate(ref, KeySpec()))
    with TpmStore(swtpm.tcti, directory, auth=lambda: b"wrong") as store, pytest.raises(KeyLocked):
        sign(store.load(ref))


def test_owner_authorisation(swtpm, directory):
    with ESAPI(swtpm.tcti) as esapi:
        esapi.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with TpmStore(swtpm.tcti, directory) as store, pytest.raises(KeyLocked):
        store.generate(REF, KeySpec())
    with TpmStore(swtpm.tcti, directory, owner_auth=lambda: b"owner") as store:
        sign(store.generate(REF, KeySpec()))


def test_an_authorisation_value_that_no_tpm_takes(store):
    with TpmStore(store._objects.context.tcti, Path("unused"), auth=lambda: bytes(33)) as long:
        with pytest.raises(KeyStoreError) as caught:
            long.generate(REF, KeySpec())
        assert caught.value.code == "key.auth-too-long"


# Faults


@pytest.mark.parametrize("storage", ["blob", "persistent"])
@pytest.mark.parametrize("orderly", [True, False])
def test_the_tpm_is_reset_between_operations(swtpm, directory, storage, orderly):
    with TpmStore(swtpm.tcti, directory, storage=storage) as store:
        ref = store.plan("ldevid", 1)
        key = store.generate(ref, KeySpec())
        sign(key)
        swtpm.restart(orderly=orderly)
        sign(key)
        swtpm.stop()
        with pytest.raises(KeyStoreUnavailable) as caught:
            sign(key)
        assert caught.value.code == "key.tpm-unreachable"
        swtpm.start()
        sign(key)
        sign(store.load(ref))
    assert transient(swtpm.tcti) == ()


@pytest.mark.parametrize("executed", [True, False])
def test_a_lost_answer(meter, directory, executed):
    with TpmStore(meter.tcti, directory) as store:
        key = store.generate(REF, KeySpec())
        other = store.generate(store.plan("ldevid", 2), KeySpec())
        for each, after in zip((key, other) * 2, range(4), strict=True):
            meter.lose_next(executed=executed, after=after)  # FlushContext, Load, Sign, and none
            sign(each)
        meter.lose_next(executed=executed)
        store.load(REF)
        meter.lose_next(executed=executed)  # the flush at the end
    assert transient(meter.tcti) == ()


def test_a_load_that_happened_unseen_leaves_nothing(meter, directory):
    with TpmStore(meter.tcti, directory) as store:
        store.generate(REF, KeySpec())
    with TpmStore(meter.tcti, directory) as store:
        key = store.load(REF)
        meter.lose_next(executed=True)  # Load
        sign(key)
    assert transient(meter.tcti) == ()


def test_another_key_under_our_handle_never_signs_for_us(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as ours, TpmStore(swtpm.tcti, directory) as theirs:
        key = ours.generate(REF, KeySpec())
        swtpm.restart()
        sign(theirs.generate(theirs.plan("ldevid", 2), KeySpec()))
        sign(key)  # verifies with our public key
        theirs.close()
        sign(key)


@pytest.mark.parametrize("times", [1, 3, 8])
def test_what_killed_processes_left_loaded_is_reclaimed(swtpm, directory, times):
    script = (
        "import os, sys, pathlib\n"
        "from holdfast.keys.tpm import TpmStore\nfrom holdfast.keys.api import KeySpec\n"
        "store = TpmStore(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "ref = store.plan('ldevid', 1)\n"
        "key = store.load(ref) if ref in store.refs() else store.generate(ref, KeySpec())\n"
        "from cryptography.hazmat.primitives import hashes\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "key.signer().sign(b'x', ec.ECDSA(hashes.SHA256()))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", script, swtpm.tcti, str(directory)], capture_output=True, check=False
        )
        assert done.returncode == -9, done.stderr
    assert transient(swtpm.tcti) != ()
    with TpmStore(swtpm.tcti, directory) as store:
        sign(store.load(REF))
        sign(store.generate(store.plan("ldevid", 2), KeySpec()))
        store.destroy(REF)
    assert transient(swtpm.tcti) == ()


def test_a_full_tpm_is_told(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as store:
        store.generate(REF, KeySpec())
    with ESAPI(swtpm.tcti) as esapi:
        strangers = [esapi.create_primary(None)[0] for _ in range(3)]
        with TpmStore(swtpm.tcti, directory) as store:
            with pytest.raises(KeyStoreUnavailable) as caught:
                sign(store.load(REF))
            assert caught.value.code == "key.tpm-full"
        assert len(transient(swtpm.tcti)) == 3, "what is not ours stays"
        for stranger in strangers:
            esapi.flush_context(stranger)


def test_a_cleared_tpm(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as store:
        key = store.generate(REF, KeySpec())
        with ESAPI(swtpm.tcti) as esapi:
            esapi.clear(ESYS_TR.LOCKOUT)
    with TpmStore(swtpm.tcti, directory) as store:
        with pytest.raises(KeyStoreError) as caught:
            store.load(REF)
        assert caught.value.code == "key.parent-changed"
        # A foreign writer does not name the parent: then the TPM itself refuses the key.
        foreign = key.reference_pem().partition(b"Parent-Name")[0]
        (directory / "foreign-1.tss2.pem").write_bytes(foreign)
        with pytest.raises(KeyStoreError) as caught:
            store.load(KeyRef("tpm2:blob:foreign-1"))
        assert caught.value.code == "key.parent-changed"
        sign(store.generate(REF, KeySpec()))
        sign(store.load(REF))
    assert transient(swtpm.tcti) == ()


def test_a_cleared_tpm_under_an_open_store(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as store:
        key = store.generate(REF, KeySpec())
        with ESAPI(swtpm.tcti) as esapi:
            esapi.clear(ESYS_TR.LOCKOUT)
        with pytest.raises(KeyStoreError):
            sign(key)


def test_a_damaged_key_file(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as store:
        store.generate(REF, KeySpec())
        path = directory / "ldevid-1.tss2.pem"
        text = path.read_bytes().splitlines(keepends=True)
        middle = len(text) - 4
        text[middle] = text[middle][:10] + (b"B" if text[middle][10:11] == b"A" else b"A") + text[middle][11:]
        path.write_bytes(b"".join(text))
    with TpmStore(swtpm.tcti, directory) as store:
        key = store.load(REF)
        with pytest.raises(KeyStoreError) as caught:
            sign(key)
        assert caught.value.code == "key.corrupt"


def test_unreachable(directory, monkeypatch, tmp_path):
    def failure(tcti: str) -> KeyStoreUnavailable:
        with TpmStore(tcti, directory) as store, pytest.raises(KeyStoreUnavailable) as caught:
            store.generate(REF, KeySpec())
        assert caught.value.code == "key.tpm-unreachable"
        return caught.value

    assert "127.0.0.1,port=1" in failure("swtpm:host=127.0.0.1,port=1").detail
    assert "does not exist" in failure("device:/dev/tpmrm77").detail
    failure("nosuchtcti:here")
    (tmp_path / "tpmrm0").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "tss" in failure(f"device:{tmp_path}/tpmrm0").detail


def test_the_object_at_the_root_handle_is_no_parent(swtpm, directory):
    with TpmStore(swtpm.tcti, directory, storage="persistent") as store:
        signing = store.generate(store.plan("ldevid", 0), KeySpec()).ref
    with TpmStore(swtpm.tcti, directory, srk=int(signing.removeprefix("tpm2:"), 16)) as store:
        with pytest.raises(KeyStoreError) as caught:
            store.generate(REF, KeySpec())
        assert caught.value.code == "key.parent-unusable"


# References


def test_handles_that_are_not_ours_stay(swtpm, directory):
    with TpmStore(swtpm.tcti, directory) as store:
        store.generate(REF, KeySpec())
        for ref in (f"tpm2:{SRK:#x}", "tpm2:0x81010110", "tpm2:0x810100ff"):
            for operation in (store.destroy, lambda r, s=store: s.generate(r, KeySpec())):
                with pytest.raises(KeyStoreError) as caught:
                    operation(KeyRef(ref))
                assert caught.value.code == "key.not-ours"
        with pytest.raises(KeyStoreError) as caught:
            store.load(KeyRef(f"tpm2:{SRK:#x}"))
        assert caught.value.code == "key.restricted"


def test_persistent_generations_take_turns(directory):
    store = TpmStore("unused", directory, storage="persistent", persistent_count=6, identities=("a", "b"))
    assert [store.plan("a", n)[-2:] for n in range(4)] == ["00", "01", "02", "00"]
    assert [store.plan("b", n)[-2:] for n in range(4)] == ["03", "04", "05", "03"]
    with pytest.raises(KeyStoreError) as caught:
        store.plan("c", 1)
    assert caught.value.code == "key.no-handle"
    narrow = TpmStore("unused", directory, storage="persistent", persistent_count=1)
    with pytest.raises(KeyStoreError) as caught:
        narrow.plan("ldevid", 1)
    assert caught.value.code == "key.no-handle"


def test_both_kinds_load_from_any_store(swtpm, directory):
    wrapped, persistent = TpmHome(swtpm.tcti, directory), TpmHome(swtpm.tcti, directory, "persistent")
    stores = wrapped.open(), persistent.open()
    refs = [s.generate(s.plan("ldevid", 1), KeySpec()).ref for s in stores]
    for store in stores:
        for ref in refs:
            sign(store.load(ref))
    assert stores[0].refs() == {refs[0]}
    assert stores[1].refs() == set(refs)
    for store in stores:
        store.close()


def test_files_are_private_whole_and_replaced_atomically(swtpm, directory, monkeypatch):
    with TpmStore(swtpm.tcti, directory) as store:
        first = store.generate(REF, KeySpec())
        path = directory / "ldevid-1.tss2.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700
        assert path.read_bytes() == first.reference_pem()

        def no_space(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(KeyStoreUnavailable) as caught:
            store.generate(REF, KeySpec())
        assert caught.value.code == "key.directory"
        assert transient(swtpm.tcti) == ()
        monkeypatch.undo()
        assert [p.name for p in directory.iterdir()] == ["ldevid-1.tss2.pem"]
        assert store.load(REF).signer().public_key() == first.signer().public_key()


def test_missing_key(store):
    with pytest.raises(KeyNotFound):
        store.load(REF)
    with pytest.raises(KeyNotFound):
        store.load(KeyRef("tpm2:0x81010101"))


# Foreign readers


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.RSA2048], ids=lambda a: a.value)
def test_tpm2_tools_load_what_we_wrote(swtpm, store, directory, tmp_path, algorithm):
    key = store.generate(REF, KeySpec(algorithm))
    store.close()
    environment = {**os.environ, "TPM2TOOLS_TCTI": swtpm.tcti, "TSS2_LOG": "all+NONE"}

    def tool(*arguments: object) -> str:
        done = subprocess.run(
            [str(a) for a in arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pem, context = directory / "ldevid-1.tss2.pem", tmp_path / "key.ctx"
    (tmp_path / "data").write_bytes(b"data")
    tool("tpm2_load", "-r", pem, "-c", context)
    tool("tpm2_flushcontext", "-t")
    tool("tpm2_sign", "-c", context, "-g", "sha256", "-f", "plain", "-o", tmp_path / "sig", tmp_path / "data")
    tool("tpm2_flushcontext", "-t")
    signature, public = (tmp_path / "sig").read_bytes(), key.signer().public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, b"data", ECDSA)
    else:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        public.verify(signature, b"data", PKCS1v15(), hashes.SHA256())


def test_tpm2_pytss_loads_what_we_wrote_and_we_load_what_it_wrote(swtpm, store, directory):
    key = store.generate(REF, KeySpec())
    with ESAPI(swtpm.tcti) as esapi:
        theirs = TSSPrivKey.from_pem(key.reference_pem())
        assert (theirs.parent, theirs.empty_auth) == (SRK, True)
        handle = theirs.load(esapi)
        esapi.flush_context(handle)
        made = TSSPrivKey.create_ecc(esapi, parent=SRK)
    (directory / "theirs-1.tss2.pem").write_bytes(made.to_pem())
    sign(store.load(KeyRef("tpm2:blob:theirs-1")))


def test_the_tss_does_not_write_to_stderr(directory):
    script = (
        "import pathlib, sys\nfrom holdfast.keys.tpm import TpmStore\nfrom holdfast.keys.api import *\n"
        "from holdfast.wire.errors import KeyStoreUnavailable\n"
        "try: TpmStore('swtpm:host=127.0.0.1,port=1', pathlib.Path(sys.argv[1])).load('tpm2:0x81010101')\n"
        "except KeyStoreUnavailable as error: print(error.code)\n"
    )

    def run(**extra: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "TSS2_LOG"} | extra
        return subprocess.run(
            [sys.executable, "-c", script, str(directory)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    assert (run().stdout, run().stderr) == ("key.tpm-unreachable\n", "")
    assert "tcti" in run(TSS2_LOG="all+ERROR").stderr, "a user who asks for the log gets it"


def test_the_store_counts_its_commands_as_the_tpm_does(meter, tmp_path) -> None:
    with TpmStore(meter.tcti, tmp_path / "keys") as store:
        assert store.usage.commands == 0
        store.generate(store.plan("ldevid", 1), KeySpec()).signer().sign(b"x", ec.ECDSA(hashes.SHA256()))
        used = store.usage
        assert used.commands == len(meter.take())
        assert used.seconds > 0
        assert store.lockout_counter() == 0
        assert len(meter.take()) == 1
