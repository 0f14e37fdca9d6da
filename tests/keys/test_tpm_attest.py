"""What a real (software) TPM states about its keys, judged by the code of a CA."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tpm import TpmStore
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import HoldfastError, KeyStoreError, RemoteProtocolError, TrustError
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.tpm.attested import parse_certify, require_certified, verify_statement
from holdfast.wire.tpm.credential import make_credential
from holdfast.wire.tpm.public import HARDWARE_BOUND, RESTRICTED, SIGN, TpmPublic, parse_public
from holdfast_factory.ek import manufacture_ek
from holdfast_factory.swtpm import Swtpm
from keys.tpm_home import transient

pytestmark = pytest.mark.tpm
REF = KeyRef("tpm2:blob:ldevid-1")


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    """A TPM with endorsement keys and certificates, as its maker ships it."""
    home = tmp_path_factory.mktemp("chip")
    (home / "tpm").mkdir()
    manufacture_ek(home / "tpm", home / "ca")
    with Swtpm(home / "tpm") as tpm:
        yield tpm


@pytest.fixture
def store(chip: Swtpm, tmp_path: Path) -> Iterator[TpmStore]:
    with open_store(TpmSettings(chip.tcti, tmp_path / "keys")) as store:
        yield store
    assert transient(chip.tcti) == ()


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.RSA2048])
@pytest.mark.parametrize("by", [KeyAlgorithm.P256, KeyAlgorithm.RSA2048])
def test_a_new_key_is_certified_by_its_own_tpm(
    store: TpmStore, algorithm: KeyAlgorithm, by: KeyAlgorithm
) -> None:
    key = store.generate(REF, KeySpec(algorithm))
    evidence = store.attesting(by).certify(key, b"challenge")
    attestation = parse_public(store.attesting(by).attestation_public())
    public = parse_public(evidence.public)
    assert spki(public.key) == spki(key.signer())
    assert public.lacking(HARDWARE_BOUND | SIGN) == ()
    assert attestation.lacking(HARDWARE_BOUND | SIGN | RESTRICTED) == ()
    assert verify_statement(evidence.statement, evidence.signature, attestation.key) == "sha256"
    require_certified(parse_certify(evidence.statement), public, b"challenge")


def test_a_statement_stands_for_one_key_and_one_challenge(store: TpmStore) -> None:
    evidence = store.attesting().certify(store.generate(REF, KeySpec()), b"challenge")
    other = store.attesting().certify(store.generate(KeyRef("tpm2:blob:ldevid-2"), KeySpec()), b"challenge")
    attestation = parse_public(store.attesting().attestation_public())
    statement, public = parse_certify(evidence.statement), parse_public(evidence.public)
    cases = {
        "attest.extra-data": lambda: require_certified(statement, public, b"another"),
        "attest.name": lambda: require_certified(statement, parse_public(other.public), b"challenge"),
        "attest.signature": lambda: verify_statement(other.statement, evidence.signature, attestation.key),
        "attest.magic": lambda: parse_certify(b"\0" + evidence.statement[1:]),
        "attest.type": lambda: parse_certify(evidence.statement[:5] + b"\x18" + evidence.statement[6:]),
        "attest.algorithm": lambda: verify_statement(
            evidence.statement, b"\x00\x18\x00\x04" + evidence.signature[4:], attestation.key
        ),
    }
    for code, broken in cases.items():
        with pytest.raises(TrustError) as caught:
            broken()
        assert caught.value.code == code
    for cut in range(len(evidence.statement)):
        with pytest.raises(HoldfastError):
            parse_certify(evidence.statement[:cut])


def test_public_areas_that_cannot_be_read(store: TpmStore) -> None:
    area = store.attesting().attestation_public()
    for cut in range(len(area)):
        with pytest.raises(RemoteProtocolError):
            parse_public(area[:cut])
    with pytest.raises(RemoteProtocolError):
        parse_public(area + b"\0")
    flipped = bytearray(area)
    flipped[-1] ^= 1  # a point that is not on the curve
    with pytest.raises(RemoteProtocolError):
        parse_public(bytes(flipped))


def test_the_attestation_key_is_the_same_after_a_restart_and_a_cleared_owner(
    chip: Swtpm, tmp_path: Path
) -> None:
    with open_store(TpmSettings(chip.tcti, tmp_path / "a")) as first:
        area = first.attesting().attestation_public()
    with open_store(TpmSettings(chip.tcti, tmp_path / "b")) as second:
        assert second.attesting().attestation_public() == area


def test_attestation_keys_of_other_kinds_are_refused(store: TpmStore) -> None:
    with pytest.raises(KeyStoreError) as caught:
        store.attesting(KeyAlgorithm.P384)
    assert caught.value.code == "key.unsupported"


# --- credential activation


def test_a_secret_is_opened_by_the_tpm_that_it_was_sealed_for(store: TpmStore) -> None:
    endorsement = store.attesting().endorsement_key()
    ek = parse_public(endorsement.public)
    assert endorsement.certificate is not None
    certificate = x509.load_der_x509_certificate(endorsement.certificate)
    assert spki(certificate) == spki(ek.key)
    name = parse_public(store.attesting().attestation_public()).name
    secret = secrets.token_bytes(32)
    sealed = make_credential(ek, name, secret, secrets.token_bytes)
    assert store.attesting().activate(sealed.id_object, sealed.encrypted_secret) == secret


def test_a_secret_for_another_key_or_tpm_stays_closed(store: TpmStore, tmp_path: Path) -> None:
    ek = parse_public(store.attesting().endorsement_key().public)
    name = parse_public(store.attesting().attestation_public()).name
    for_other_key = make_credential(ek, name[:-1] + b"\0", b"s" * 32, secrets.token_bytes)
    with Swtpm(tmp_path / "other") as chip, open_store(TpmSettings(chip.tcti, tmp_path / "k")) as other:
        stranger = parse_public(other.attesting().endorsement_key().public)
    for_other_tpm = make_credential(stranger, name, b"s" * 32, secrets.token_bytes)
    tampered = make_credential(ek, name, b"s" * 32, secrets.token_bytes)
    tampered = replace(tampered, id_object=tampered.id_object[:-1] + bytes([tampered.id_object[-1] ^ 1]))
    for sealed in (for_other_key, for_other_tpm, tampered):
        with pytest.raises(KeyStoreError) as caught:
            store.attesting().activate(sealed.id_object, sealed.encrypted_secret)
        assert caught.value.code == "key.activation"


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_tpm2_tools_opens_what_we_sealed(chip: Swtpm, tmp_path: Path, kind: str) -> None:
    """An independent program on the TPM's side: tpm2_activatecredential, for both kinds of EK."""

    def tool(*arguments: str) -> None:
        done = subprocess.run(
            arguments, env={"TPM2TOOLS_TCTI": chip.tcti, "PATH": "/usr/bin:/bin"}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stderr}"

    tool("tpm2_createek", "-G", kind, "-c", "ek.ctx", "-u", "ek.pub")
    tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa",
         "-u", "ak.pub", "-n", "ak.name")  # fmt: skip
    tool("tpm2_flushcontext", "-t")
    ek: TpmPublic = parse_public((tmp_path / "ek.pub").read_bytes())
    ak = parse_public((tmp_path / "ak.pub").read_bytes())
    assert ak.name == (tmp_path / "ak.name").read_bytes()
    secret = secrets.token_bytes(20)
    sealed = make_credential(ek, ak.name, secret, secrets.token_bytes)
    header = bytes.fromhex("badcc0de00000001")  # the tool's own file header
    blob = b"".join(
        len(part).to_bytes(2, "big") + part for part in (sealed.id_object, sealed.encrypted_secret)
    )
    (tmp_path / "sealed").write_bytes(header + blob)
    tool("tpm2_startauthsession", "--policy-session", "-S", "s.ctx")
    tool("tpm2_policysecret", "-S", "s.ctx", "-c", "e")
    tool("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "sealed", "-o", "opened",
         "-P", "session:s.ctx")  # fmt: skip
    tool("tpm2_flushcontext", "s.ctx")
    tool("tpm2_flushcontext", "-t")
    assert (tmp_path / "opened").read_bytes() == secret
