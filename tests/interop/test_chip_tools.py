"""What the line leaves in a chip, in the eyes of tpm2-tools, openssl and swtpm's own certificate tool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import wire_pki as pki
from factory.chips import MODEL, SERIAL, Maker, unit
from factory.test_tpm_unit import ISSUER, whole
from holdfast.wire.tpm.attested import parse_certify, require_certified, verify_statement
from holdfast.wire.tpm.credential import make_credential
from holdfast.wire.tpm.octets import Octets, sized
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.tcg_csr import parse_request
from holdfast.wire.tpm.templates import Level, iak, idevid
from holdfast_factory.authority import Authority
from holdfast_factory.chips.ek_issue import issue
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.tpm_unit import TpmUnit
from holdfast_factory.unit import Certificates, Endorsement, SealedSecret, Shown
from tools import need

pytestmark = [pytest.mark.interop, pytest.mark.tpm]
NOW = datetime.now(UTC).replace(microsecond=0)
MAGIC = bytes.fromhex("badcc0de00000001")  # tpm2-tools' file around the two structures


@dataclass(frozen=True)
class Sealed:
    """A chip that went through the line, and what it showed on the way."""

    maker: Maker
    chip: Swtpm
    endorsement: Endorsement
    keys: Shown
    certificates: Certificates
    home: Path

    def run(self, *command: str) -> bytes:
        environment = {**os.environ, "TPM2TOOLS_TCTI": self.chip.tcti, "TSS2_LOG": "all+NONE"}
        done = subprocess.run(command, cwd=self.home, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr.decode()[-800:])
        return done.stdout

    def file(self, name: str, content: bytes) -> str:
        (self.home / name).write_bytes(content)
        return name


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    need("tpm2_nvread", "tpm2-tools")
    home = tmp_path_factory.mktemp("sealed")
    maker = Maker(home)
    with maker.chip("chip") as chip:
        with unit(chip) as opened:
            certificates = whole(opened, TpmExaminer(maker.roots))
            endorsement, keys = opened.endorsement(), opened.keys(MODEL, SERIAL)
        yield Sealed(maker, chip, endorsement, keys, certificates, home)


def test_keys_are_where_the_tools_look(sealed: Sealed) -> None:
    for handle, area in (("0x81020000", sealed.keys.idevid), ("0x81020001", sealed.keys.iak)):
        sealed.run("tpm2_readpublic", "-c", handle, "-f", "der", "-o", "key.der", "-n", "key.name")
        public = parse_public(area)
        spki = public.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert (sealed.home / "key.der").read_bytes() == spki
        assert (sealed.home / "key.name").read_bytes() == public.name


def test_certificates_are_read_and_verified(sealed: Sealed) -> None:
    sealed.file("ca.pem", ISSUER.certificate.public_bytes(Encoding.PEM))
    for index in ("0x01C90200", "0x01C90100"):
        der = sealed.run("tpm2_nvread", "-C", index, index)
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        sealed.file("leaf.pem", pem)
        sealed.run("openssl", "verify", "-no_check_time", "-CAfile", "ca.pem", "leaf.pem")


def test_indices_are_locked_and_the_platforms(sealed: Sealed) -> None:
    for index in ("0x01C90200", "0x01C90100"):
        told = sealed.run("tpm2_nvreadpublic", index).decode()
        for word in ("writelocked", "writedefine", "platformcreate", "written", "ownerread", "authread"):
            assert word in told


def test_openssl_verifies_statement_and_request(sealed: Sealed) -> None:
    request = parse_request(sealed.keys.request)
    checks = (
        (sealed.keys.iak, request.contents.idevid_statement, request.contents.idevid_statement_signature),
        (sealed.keys.idevid, request.signed, request.signature),
    )
    for area, data, signature in checks:
        key = parse_public(area).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        sealed.file("key.pem", key)
        sealed.file("data", data)
        sealed.file("signature", _der(signature))
        sealed.run("openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "data")


def test_tools_verify_our_statement_in_the_tpm(sealed: Sealed) -> None:
    request = parse_request(sealed.keys.request)
    sealed.file("attest", request.contents.idevid_statement)
    sealed.file("attest.sig", request.contents.idevid_statement_signature)
    sealed.run("tpm2_verifysignature", "-c", "0x81020001", "-g", "sha256", "-m", "attest", "-s", "attest.sig")


def test_we_believe_what_tpm2_certify_states(sealed: Sealed) -> None:
    """tpm2-tools satisfy the template's policy with the branches that we compute."""
    _satisfy(sealed, "c.session", "TPM2_CC_Certify", idevid(Level.H2).branches)
    sealed.file("extra", b"nonce of the CA")
    sealed.run(
        "tpm2_certify", "-c", "0x81020000", "-P", "session:c.session", "-C", "0x81020001",
        "-g", "sha256", "-o", "stated", "-s", "stated.sig",
    )  # fmt: skip
    sealed.run("tpm2_flushcontext", "c.session")
    statement = (sealed.home / "stated").read_bytes()
    verify_statement(statement, (sealed.home / "stated.sig").read_bytes(), parse_public(sealed.keys.iak).key)
    found = parse_certify(statement)
    require_certified(found, parse_public(sealed.keys.idevid), found.extra)


def test_tools_open_what_we_seal(sealed: Sealed) -> None:
    ek = parse_public(sealed.endorsement.public)
    made = make_credential(ek, parse_public(sealed.keys.iak).name, b"s" * 32, os.urandom)
    sealed.file("blob", MAGIC + sized(made.id_object) + sized(made.encrypted_secret))
    _satisfy(sealed, "a.session", "TPM2_CC_ActivateCredential", iak(Level.H2).branches)
    sealed.run(
        "tpm2_activatecredential", "-c", "0x81020001", "-p", "session:a.session", "-C", "0x81010016",
        "-i", "blob", "-o", "opened",
    )  # fmt: skip
    sealed.run("tpm2_flushcontext", "a.session")
    assert (sealed.home / "opened").read_bytes() == b"s" * 32


def test_we_open_what_the_tools_seal(sealed: Sealed) -> None:
    sealed.run("tpm2_readpublic", "-c", "0x81010016", "-f", "tss", "-o", "ek.pub")
    sealed.file("secret", b"t" * 32)
    name = parse_public(sealed.keys.iak).name.hex()
    sealed.run(
        "tpm2_makecredential", "-T", "none", "-u", "ek.pub", "-s", "secret", "-n", name, "-o", "theirs"
    )
    octets = Octets((sealed.home / "theirs").read_bytes()[8:], "their credential")
    with unit(sealed.chip) as opened:
        assert opened.activate(SealedSecret(octets.sized(), octets.sized())) == b"t" * 32


def test_ek_certificate_of_swtpm_is_accepted_and_read_by_openssl(sealed: Sealed) -> None:
    maker = TpmExaminer(sealed.maker.roots).maker(sealed.endorsement, NOW + timedelta(hours=1))
    assert maker.manufacturer.startswith("id:")
    sealed.file("ek.der", sealed.endorsement.certificates[0])
    told = sealed.run("openssl", "x509", "-inform", "DER", "-in", "ek.der", "-noout", "-text").decode()
    assert "2.23.133.8.1" in told
    assert maker.manufacturer in told


def test_ek_certificate_that_we_issue_is_verified_by_openssl(sealed: Sealed) -> None:
    """A blank TPM gets its certificate on the line, and is believed by the factory's own CA from then on."""
    ca = pki.ca("EK CA", not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=900))
    authority = Authority(ca.certificate, ca.key)  # type: ignore[arg-type]
    examiner = TpmExaminer((ca.certificate,))
    with Swtpm(sealed.home / "blank") as blank:
        endorsing = TpmUnit(
            TctiLink(blank.tcti), "blank", endorser=lambda ek, chip: issue(authority, ek, chip, NOW)
        )
        with endorsing as opened:
            whole(opened, examiner)
        with unit(blank) as opened:
            found = opened.endorsement()
    examiner.endorsement(found, NOW)
    sealed.file("ours.pem", x509.load_der_x509_certificate(found.certificates[0]).public_bytes(Encoding.PEM))
    sealed.file("ekca.pem", ca.certificate.public_bytes(Encoding.PEM))
    sealed.run("openssl", "verify", "-CAfile", "ekca.pem", "ours.pem")
    told = sealed.run("openssl", "x509", "-in", "ours.pem", "-noout", "-text").decode()
    for word in ("Key Agreement", "2.23.133.8.1", "2.23.133.2.1", "CA:FALSE"):
        assert word in told


def _satisfy(sealed: Sealed, session: str, command: str, branches: tuple[bytes, ...]) -> None:
    names = [sealed.file(f"branch{number}", branch) for number, branch in enumerate(branches)]
    sealed.run("tpm2_startauthsession", "--policy-session", "-S", session)
    sealed.run("tpm2_policysecret", "-S", session, "-c", "e")
    sealed.run("tpm2_policycommandcode", "-S", session, command)
    sealed.run("tpm2_policyor", "-S", session, f"sha256:{','.join(names)}")


def _der(signature: bytes) -> bytes:
    octets = Octets(signature, "a signature")
    octets.take(4)
    r, s = (int.from_bytes(octets.sized(), "big") for _ in range(2))
    return encode_dss_signature(r, s)
