"""Loading certificates: complete at once, strict, and without a warning."""

from __future__ import annotations

import pytest

import wire_pki as pki
from holdfast.wire.certificates import load, load_all
from holdfast.wire.errors import RemoteProtocolError

LEAF = pki.end_entity("leaf", pki.ca("Root"))


def test_certificates_come_back_in_order() -> None:
    assert load_all(map(pki.der, LEAF.chain)) == LEAF.chain


def test_bounds() -> None:
    der = pki.der(LEAF.certificate)
    assert load(der, limit=len(der)) == LEAF.certificate
    with pytest.raises(RemoteProtocolError, match=r"certificate\.too-large"):
        load(der, limit=len(der) - 1)


def test_what_is_not_one_der_certificate() -> None:
    der = pki.der(LEAF.certificate)
    for bad in (b"", der[:-1], der + b"\0", pki.pem(LEAF.certificate), b"\x30\x80" + der[4:] + b"\0\0"):
        with pytest.raises(RemoteProtocolError, match=r"certificate\.syntax"):
            load(bad)


def test_a_serial_number_that_is_not_positive() -> None:
    der = pki.der(pki.certificate("odd", LEAF.key, None, serial=1).certificate)
    for number in (b"\x00", b"\xff"):
        with pytest.raises(RemoteProtocolError, match="not positive"):
            load(der.replace(b"\x02\x01\x01", b"\x02\x01" + number, 1))


def test_extensions_are_read_at_once() -> None:
    der = pki.der(LEAF.certificate)
    usage = bytes.fromhex("0603551d0f0101ff0404")
    assert der.count(usage) == 1
    with pytest.raises(RemoteProtocolError, match=r"certificate\.syntax"):
        load(der.replace(usage + b"\x03\x02", usage + b"\x02\x02"))
