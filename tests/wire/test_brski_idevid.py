"""What BRSKI reads from an IDevID certificate."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

from holdfast.wire import oids
from holdfast.wire.brski.messages import aki, masa_url, serial_number
from holdfast.wire.errors import RemoteProtocolError
from wire.brski_parties import NOW, Holder, issue


class _Module(core.Sequence):
    _fields = [("type", core.ObjectIdentifier), ("serial", core.OctetString, {"optional": True})]  # noqa: RUF012


def module_name(serial: bytes | None) -> x509.OtherName:
    members = {"type": "1.3.6.1.4.1.1"} | ({} if serial is None else {"serial": serial})
    return x509.OtherName(x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), _Module(members).dump())


def code_of(read: object, certificate: x509.Certificate) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        read(certificate)  # type: ignore[operator]
    return caught.value.code


def raw_masa(value: bytes) -> x509.Certificate:
    return with_extension(issue("d"), oids.MASA_URL, value)


def with_extension(holder: Holder, oid: str, value: bytes) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(holder.certificate.subject)
        .issuer_name(holder.certificate.subject)
        .public_key(holder.key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
        .sign(holder.key, hashes.SHA256())
    )


def test_the_subject_serial_number_wins_over_the_hardware_module() -> None:
    device = issue("d", serial="SN-1", san=(module_name(b"HW-1"),)).certificate
    assert serial_number(device) == "SN-1"


@pytest.mark.parametrize(("octets", "text"), [(b"HW-1", "HW-1"), (b"\x00\xff", "AP8="), (b"a\nb", "YQpi")])
def test_the_hardware_module_serial_as_text_or_base64(octets: bytes, text: str) -> None:
    assert serial_number(issue("d", san=(module_name(octets),)).certificate) == text


def test_no_serial_number_anywhere_is_an_error() -> None:
    assert code_of(serial_number, issue("d").certificate) == "idevid.serial-number"
    assert code_of(serial_number, issue("d", san=(module_name(None),)).certificate) == "idevid.serial-number"


def test_two_serial_numbers_are_refused() -> None:
    holder = issue("d")
    names = [x509.NameAttribute(NameOID.SERIAL_NUMBER, text) for text in ("1", "2")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name(names))
        .public_key(holder.key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(holder.key, hashes.SHA256())
    )
    assert code_of(serial_number, certificate) == "idevid.serial-number"


def test_a_broken_hardware_module_name_is_a_named_error() -> None:
    name = x509.OtherName(x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), b"\x30\x03\x02\x01\x05")
    assert code_of(serial_number, issue("d", san=(name,)).certificate) == "idevid.hardware-module"


def test_aki_is_the_whole_extension_value() -> None:
    certificate = issue("d").certificate
    extension = certificate.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    found = aki(certificate)
    assert found == extension.value.public_bytes()
    assert found is not None
    assert found[:4] == b"\x30\x16\x80\x14"  # SEQUENCE { [0] 20 octets }


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("masa.example", "https://masa.example/.well-known/brski"),
        ("masa.example:9443", "https://masa.example:9443/.well-known/brski"),
        ("https://masa.example/lab/", "https://masa.example/lab"),
        ("https://masa.example/.well-known/brski", "https://masa.example/.well-known/brski"),
    ],
)
def test_masa_url_is_completed_from_an_authority(said: str, meant: str) -> None:
    assert masa_url(issue("d", masa_url=said).certificate) == meant


@pytest.mark.parametrize(
    "said", ["http://masa.example/", "ldap://x/y", "masa.example/path", "https:///x", "", "a b", "masa:99999",
             "user@masa.example"],
)  # fmt: skip
def test_masa_url_that_is_not_https_is_refused(said: str) -> None:
    assert code_of(masa_url, issue("d", masa_url=said).certificate) == "idevid.masa-url"


@pytest.mark.parametrize(
    "value", [b"", b"\x16\x05ab", b"\x16\x02ab\x00", b"\x04\x02ab", b"\x02\x01\x05", b"\x1e\x02\x00a"]
)
def test_masa_url_of_another_type_is_refused(value: bytes) -> None:
    assert code_of(masa_url, raw_masa(value)) == "idevid.masa-url"


def test_a_certificate_without_masa_url() -> None:
    assert masa_url(issue("d").certificate) is None
