"""One factory-fresh device, judged by openssl and tpm2-tools, interrupted at each point, and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire import csr, oids
from holdfast.wire.brski import idevid as reading
from holdfast.wire.errors import (
    ConfigError,
    HoldfastError,
    KeyLocked,
    KeyStoreError,
    KeyStoreUnavailable,
    StateCorrupt,
    TrustError,
)
from holdfast_factory import device as device_module
from holdfast_factory import idevid, ledger
from holdfast_factory.authority import NEVER_EXPIRES, Factory, init_factory
from holdfast_factory.chip import IDEVID_HANDLE, IDEVID_NV, SRK_HANDLE, Chip
from holdfast_factory.device import Device, make_device
from holdfast_factory.inspection import inspect
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_meter import TpmMeter

pytestmark = pytest.mark.tpm
SERIAL = "GW-0001"
Make = Callable[..., Device]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def make(factory: Factory, tpm: Swtpm, out: Path, now: datetime) -> Make:
    def run(serial: str = SERIAL, *, tcti: str = "", by: Factory = factory, srk: bool = True) -> Device:
        return make_device(by, tcti or tpm.tcti, serial, out, now, srk=srk)

    return run


def _leaf(out: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((out / "idevid.pem").read_bytes())


def _tool(tpm: Swtpm, *command: str) -> bytes:
    if shutil.which(command[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{command[0]} is missing: apt-get install tpm2-tools")
        pytest.skip(f"{command[0]} is missing: apt-get install tpm2-tools")
    environment = {**os.environ, "TPM2TOOLS_TCTI": tpm.tcti}
    return subprocess.run(command, capture_output=True, check=True, env=environment).stdout


def test_openssl_verifies_the_chain_that_ships(make: Make, out: Path) -> None:
    make()
    done = subprocess.run(
        [
            "openssl", "verify", "-x509_strict", "-CAfile", out / "manufacturer-anchors.pem",
            "-untrusted", out / "idevid-chain.pem", out / "idevid.pem",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_openssl_reads_the_profile(make: Make, out: Path) -> None:
    make()
    text = subprocess.run(
        ["openssl", "x509", "-in", out / "idevid.pem", "-noout", "-text", "-nameopt", "RFC2253"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Subject: serialNumber=GW-0001,OU=Gateway,O=Holdfast Example Works" in text
    assert "Not After : Dec 31 23:59:59 9999 GMT" in text
    assert "X509v3 Key Usage: critical\n                Digital Signature\n" in text
    assert f"{oids.MASA_URL}: \n                ..masa.example:9443" in text
    # OpenSSL 3.0 shows the number, 3.5 the name.
    assert f"othername: {oids.HARDWARE_MODULE_NAME}" in text or "othername: Hardware Module Name" in text
    assert "Extended Key Usage" not in text
    parsed = subprocess.run(
        ["openssl", "asn1parse", "-in", out / "idevid.pem"], capture_output=True, text=True, check=True
    ).stdout
    assert ":99991231235959Z" in parsed


def test_hardware_module_name_holds_type_and_serial(make: Make, out: Path) -> None:
    make()
    names = _leaf(out).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (other,) = names.get_values_for_type(x509.OtherName)
    # SEQUENCE { OID 1.3.6.1.4.1.32473.1, OCTET STRING "GW-0001" }, written by hand
    assert other.value == bytes.fromhex("3014 06092b0601040181fd5901 0407") + SERIAL.encode()


def test_tpm2_tools_find_key_certificate_and_nothing_transient(
    make: Make, tpm: Swtpm, out: Path, tmp_path: Path
) -> None:
    device = make()
    assert _tool(tpm, "tpm2_nvread", device.idevid_nv) == _leaf(out).public_bytes(Encoding.DER)
    _tool(tpm, "tpm2_readpublic", "-Q", "-c", device.idevid_handle, "-f", "der", "-o", str(tmp_path / "key"))
    assert (tmp_path / "key").read_bytes() == csr.public_bytes(_leaf(out))
    assert _tool(tpm, "tpm2_getcap", "handles-transient") == b""
    persistent = _tool(tpm, "tpm2_getcap", "handles-persistent").decode().split()
    assert {h for h in persistent if h.startswith("0x")} == {"0x81000001", "0x81020000"}


def test_the_idevid_key_follows_the_tcg_template(make: Make, tpm: Swtpm) -> None:
    make()
    text = _tool(tpm, "tpm2_readpublic", "-c", hex(IDEVID_HANDLE)).decode()
    assert "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|sign" in text
    assert "restricted" not in text
    assert "ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea" in text


def test_the_agent_reads_the_names_that_the_factory_gave(make: Make, out: Path, factory: Factory) -> None:
    device = make()
    leaf = _leaf(out)
    assert reading.serial_number(leaf) == SERIAL == device.serial
    assert reading.masa_url(leaf) == "https://masa.example:9443/.well-known/brski"
    ski = factory.idevid_ca.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    ).value.digest
    assert reading.aki(leaf) == b"\x30\x16\x80\x14" + ski


def test_without_srk_none_is_made(make: Make, tpm: Swtpm) -> None:
    make(srk=False)
    with Chip(tpm.tcti) as chip:
        assert chip.public_key(SRK_HANDLE) is None


def test_the_same_again_reads_back(make: Make, factory: Factory, out: Path) -> None:
    first = make()
    leaf = _leaf(out)
    shutil.rmtree(out)
    assert make() == replace(first, new=False)
    assert _leaf(out) == leaf
    assert len(ledger.entries(factory.directory)) == 1


def test_the_ledger_names_certificate_key_and_ek(
    factory: Factory, tmp_path: Path, out: Path, now: datetime
) -> None:
    with Swtpm(tmp_path / "chip", ek=True, ek_authority=factory.directory / "ek-authority") as tpm:
        device = make_device(factory, tpm.tcti, SERIAL, out, now)
    (entry,) = ledger.entries(factory.directory)
    assert (entry.at, entry.serial) == (now, SERIAL)
    assert entry.certificate == device.certificate_sha256
    assert entry.certificate_serial == f"{_leaf(out).serial_number:x}"
    assert entry.ek_certificate == device.ek_certificate_sha256 != ""


def test_one_tpm_never_becomes_another_device(make: Make, tpm: Swtpm) -> None:
    make()
    with pytest.raises(KeyStoreError) as caught:
        make("GW-0002")
    assert caught.value.code == "factory.other-serial"
    with Chip(tpm.tcti) as chip:
        content = chip.read_nv(IDEVID_NV)
    assert content is not None
    assert reading.serial_number(x509.load_der_x509_certificate(content)) == SERIAL


def test_another_factory_does_not_adopt_a_device(
    make: Make, factory: Factory, tmp_path: Path, now: datetime
) -> None:
    make()
    other = init_factory(tmp_path / "other", factory.product, now)  # same names, other keys
    with pytest.raises(KeyStoreError) as caught:
        make(by=other)
    assert caught.value.code == "factory.other-serial"


def test_one_serial_is_never_given_to_two_tpms(make: Make, tmp_path: Path) -> None:
    make()
    with Swtpm(tmp_path / "second") as second:
        with pytest.raises(KeyStoreError) as caught:
            make(tcti=second.tcti)
        assert caught.value.code == "factory.serial-used"
        with Chip(second.tcti) as chip:
            assert chip.read_nv(IDEVID_NV) is None


@pytest.mark.parametrize("content", [b"\x30\x03\x02\x01\x05", b"somebody's notes"])
def test_foreign_nv_is_not_overwritten(make: Make, tpm: Swtpm, content: bytes) -> None:
    with Chip(tpm.tcti) as chip:
        chip.write_nv(IDEVID_NV, content)
    with pytest.raises(KeyStoreError) as caught:
        make()
    assert caught.value.code == "factory.nv-taken"
    with Chip(tpm.tcti) as chip:
        assert chip.read_nv(IDEVID_NV) == content


def test_a_foreign_key_at_the_handle_is_not_replaced(make: Make, tpm: Swtpm) -> None:
    _tool(tpm, "tpm2_createprimary", "-Q", "-C", "e", "-G", "ecc", "-c", f"{tpm.state_dir}/other.ctx")
    _tool(tpm, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", f"{tpm.state_dir}/other.ctx", hex(IDEVID_HANDLE))
    _tool(tpm, "tpm2_flushcontext", "-t")
    with pytest.raises(KeyStoreError) as caught:
        make()
    assert caught.value.code == "factory.handle-taken"
    assert _tool(tpm, "tpm2_getcap", "handles-transient") == b""


@pytest.mark.parametrize(
    ("ledger_lost", "code"), [(False, "factory.serial-used"), (True, "factory.handle-taken")]
)
def test_a_certificate_for_a_lost_key_is_refused(
    make: Make, tpm: Swtpm, factory: Factory, ledger_lost: bool, code: str
) -> None:
    make()
    _tool(tpm, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", hex(IDEVID_HANDLE))
    _tool(tpm, "tpm2_changeeps", "-Q")  # a new endorsement seed makes another IDevID key
    if ledger_lost:
        (factory.directory / ledger.LEDGER).unlink()
    with pytest.raises(KeyStoreError) as caught:
        make()
    assert caught.value.code == code


def test_padding_after_the_certificate_is_cut_off(make: Make, tpm: Swtpm, out: Path) -> None:
    first = make()
    der = _leaf(out).public_bytes(Encoding.DER)
    with Chip(tpm.tcti) as chip:
        chip.write_nv(IDEVID_NV, der + b"\xff" * 100)
    assert make() == replace(first, new=False)


class _PowerCut(BaseException):
    """Not an Exception: nothing may catch it and go on."""


@pytest.mark.parametrize(
    "point", ["provision_idevid", "provision_srk", "signer", "write_nv", "append", "write_file"]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_power_cut_anywhere_is_mended_by_running_again(
    make: Make, factory: Factory, tpm: Swtpm, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
) -> None:
    home = {"append": ledger, "write_file": device_module}.get(point, Chip)
    real = getattr(home, point)

    def cut(*arguments: object, **keywords: object) -> None:
        if after:
            real(*arguments, **keywords)
        raise _PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(home, point, cut)
        with pytest.raises(_PowerCut):
            make()
    tpm.restart(orderly=False)
    device = make()
    assert device.serial == SERIAL
    issued = ledger.entries(factory.directory)
    assert issued[-1].certificate == device.certificate_sha256
    assert len({e.key for e in issued}) == 1


def test_a_torn_certificate_in_nv_is_issued_anew(make: Make, tpm: Swtpm, out: Path, factory: Factory) -> None:
    make()
    torn = _leaf(out).public_bytes(Encoding.DER)[:300].ljust(600, b"\xff")
    with Chip(tpm.tcti) as chip:
        chip.write_nv(IDEVID_NV, torn)
    assert make().new
    assert len(ledger.entries(factory.directory)) == 2


@pytest.mark.parametrize("executed", [True, False])
def test_each_lost_answer_is_a_named_error_and_mended(make: Make, tpm: Swtpm, executed: bool) -> None:
    with TpmMeter(tpm.port) as meter:
        for lost in range(1000):
            meter.lose_next(executed=executed, after=lost)
            try:
                make(tcti=meter.tcti)
            except KeyStoreUnavailable:
                tpm.restart()  # the object whose handle was lost on the way goes with the reset
            else:
                break
        assert lost > 20
    make()


def test_power_cuts_after_use_do_not_lock_the_idevid_out(make: Make, tpm: Swtpm) -> None:
    make()
    for _ in range(10):
        tpm.restart(orderly=False)
        make()


def test_a_patient_tpm_keeps_its_lockout_parameters(make: Make, tpm: Swtpm) -> None:
    _tool(tpm, "tpm2_dictionarylockout", "-Q", "-s", "-n", "99", "-t", "10", "-l", "10")
    make()
    with Chip(tpm.tcti) as chip:
        assert chip.lockout_tries() == 99


def test_a_tpm_that_is_not_there(make: Make, tpm: Swtpm) -> None:
    tpm.stop()
    with pytest.raises(KeyStoreUnavailable) as caught:
        make()
    assert caught.value.code == "tpm.unavailable"


def test_an_owner_password_locks_the_factory_out(make: Make, tpm: Swtpm) -> None:
    _tool(tpm, "tpm2_changeauth", "-Q", "-c", "owner", "secret")
    with pytest.raises(KeyLocked) as caught:
        make()
    assert caught.value.code == "tpm.auth"
    assert _tool(tpm, "tpm2_getcap", "handles-transient") == b""


def test_a_damaged_ledger_stops_the_line(make: Make, factory: Factory) -> None:
    make()
    with (factory.directory / ledger.LEDGER).open("ab") as file:
        file.write(b'{"at": "torn')
    with pytest.raises(StateCorrupt, match="line 2"):
        make()


@given(st.text(max_size=70))
def test_a_serial_is_printable_or_refused(serial: str) -> None:
    try:
        idevid.check_serial(serial)
    except ConfigError:
        return
    assert serial.isascii()
    assert 1 <= len(serial) <= 64


@pytest.mark.parametrize("serial", ["", " GW", "GW_1", "GW*", "\u00e9", "x" * 65, "a\nb"])
def test_serials_outside_printable_string_are_refused(make: Make, serial: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(serial)
    assert caught.value.code == "factory.serial"


def test_no_certificate_is_issued_for_an_unusable_serial(
    factory_once: Factory, request_once: bytes, now: datetime
) -> None:
    with pytest.raises(ConfigError):
        idevid.issue(factory_once, request_once, "GW_1", now)


def test_a_request_that_does_not_prove_its_key_gets_no_certificate(factory: Factory, now: datetime) -> None:
    request = bytearray(
        csr.build(ec.generate_private_key(ec.SECP256R1()), idevid.subject(factory.product, SERIAL))
    )
    request[-1] ^= 1
    with pytest.raises(TrustError) as caught:
        idevid.issue(factory, bytes(request), SERIAL, now)
    assert caught.value.code == "csr.pop"


@given(st.data())
def test_no_mutated_request_escapes_the_error_family(
    factory_once: Factory, request_once: bytes, data: st.DataObject
) -> None:
    mutated = bytearray(request_once)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    if bytes(mutated) == request_once:
        return
    with pytest.raises(HoldfastError):
        idevid.issue(factory_once, bytes(mutated), SERIAL, factory_once.root.certificate.not_valid_before_utc)


@pytest.fixture(scope="module")
def factory_once(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    from holdfast_factory.authority import Product

    from .conftest import NOW

    return init_factory(tmp_path_factory.mktemp("once") / "factory", Product("masa.example"), NOW)


@pytest.fixture(scope="module")
def request_once(factory_once: Factory) -> bytes:
    return csr.build(ec.generate_private_key(ec.SECP256R1()), idevid.subject(factory_once.product, SERIAL))


def test_the_factory_names_the_device_not_the_request(factory: Factory, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = csr.build(key, idevid.subject(factory.product, "GW-9999"), san=[x509.DNSName("evil.example")])
    certificate = idevid.issue(factory, request, SERIAL, now)
    assert reading.serial_number(certificate) == SERIAL
    assert b"evil.example" not in certificate.public_bytes(Encoding.DER)
    assert certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ) == csr.public_bytes(key.public_key())


def _other_leaf(factory: Factory, now: datetime, serial: str = SERIAL) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    request = csr.build(key, idevid.subject(factory.product, serial))
    return idevid.issue(factory, request, serial, now).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("violation", "complaint"),
    [
        ("nv gone", "NV 0x01c90200"),
        ("nv of another key", "does not start with the IDevID"),
        ("chain of another key", "the key at 0x81020000 is another one"),
        ("another serial", "another serial number"),
        ("chain unreadable", "idevid-chain.pem"),
        ("anchors of another root", "is not the root"),
        ("chain without issuer", "does not chain to the root"),
        ("key gone", "the key at 0x81020000"),
        ("srk gone", "no storage root key"),
        ("impatient", "lock the TPM out"),
        ("transient left", "transient objects"),
    ],
)
def test_inspection_finds(  # noqa: C901 (one case a violation)
    make: Make, factory: Factory, tpm: Swtpm, out: Path, now: datetime, violation: str, complaint: str
) -> None:
    make()
    chain, anchors = out / "idevid-chain.pem", out / "manufacturer-anchors.pem"
    serial = SERIAL
    issuer = factory.idevid_ca.certificate.public_bytes(Encoding.PEM)
    with Chip(tpm.tcti) as chip:
        match violation:
            case "nv gone":
                chip._esapi.nv_undefine_space(chip._esapi.tr_from_tpmpublic(IDEVID_NV))
            case "nv of another key":
                chip.write_nv(IDEVID_NV, _other_leaf(factory, now))
            case "chain of another key":
                der = _other_leaf(factory, now)
                chip.write_nv(IDEVID_NV, der)
                chain.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) + issuer)
            case "another serial":
                serial = "GW-0002"
            case "chain unreadable":
                chain.write_bytes(b"nothing")
            case "anchors of another root":
                anchors.write_bytes(issuer)
            case "chain without issuer":
                chain.write_bytes(_leaf(out).public_bytes(Encoding.PEM))
            case "key gone":
                _tool(tpm, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", hex(IDEVID_HANDLE))
            case "srk gone":
                _tool(tpm, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", hex(SRK_HANDLE))
            case "impatient":
                _tool(tpm, "tpm2_dictionarylockout", "-Q", "-s", "-n", "3", "-t", "600", "-l", "600")
            case "transient left":
                _tool(tpm, "tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc")
    with Chip(tpm.tcti) as chip, pytest.raises(KeyStoreError, match=complaint) as caught:
        inspect(factory, chip, serial, out, srk=True)
    assert caught.value.code == "factory.inspection"


def _without_masa(leaf: x509.Certificate) -> list[x509.Extension[x509.ExtensionType]]:
    return [e for e in leaf.extensions if e.oid.dotted_string != oids.MASA_URL]


def _foreign_aki(leaf: x509.Certificate) -> list[x509.Extension[x509.ExtensionType]]:
    aki = x509.AuthorityKeyIdentifier(b"\0" * 20, None, None)
    return [
        x509.Extension(e.oid, e.critical, aki) if isinstance(e.value, x509.AuthorityKeyIdentifier) else e
        for e in leaf.extensions
    ]


@pytest.mark.parametrize(
    ("change", "end", "complaint"),
    [
        (lambda leaf: list(leaf.extensions), NEVER_EXPIRES.replace(year=2050), "the certificate expires"),
        (_without_masa, NEVER_EXPIRES, "names no MASA"),
        (_foreign_aki, NEVER_EXPIRES, "the AKI does not name the issuing CA"),
    ],
)
def test_inspection_finds_in_the_certificate(
    make: Make,
    factory: Factory,
    tpm: Swtpm,
    out: Path,
    change: Callable[[x509.Certificate], list[x509.Extension[x509.ExtensionType]]],
    end: datetime,
    complaint: str,
) -> None:
    make()
    leaf = _leaf(out)
    builder = (
        x509.CertificateBuilder(leaf.issuer, leaf.subject, leaf.public_key(), leaf.serial_number)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(end)
    )
    for extension in change(leaf):
        builder = builder.add_extension(extension.value, extension.critical)
    wrong = builder.sign(factory.idevid_ca.key, hashes.SHA256())
    issuer = factory.idevid_ca.certificate.public_bytes(Encoding.PEM)
    (out / "idevid-chain.pem").write_bytes(wrong.public_bytes(Encoding.PEM) + issuer)
    with Chip(tpm.tcti) as chip:
        chip.write_nv(IDEVID_NV, wrong.public_bytes(Encoding.DER))
        with pytest.raises(KeyStoreError, match=complaint):
            inspect(factory, chip, SERIAL, out, srk=True)
