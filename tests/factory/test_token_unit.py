"""A token goes through the line as a TPM does, with less to show."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from factory.chips import MODEL, SERIAL
from holdfast.wire.csr import build, parse
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError, TrustError
from holdfast_factory.places import examiner_for, open_unit
from holdfast_factory.softhsm import SoftToken, make_token
from holdfast_factory.unit import Certificates, Endorsement, SealedSecret, Shown, Unit
from keys.token_home import PIN, need

pytestmark = pytest.mark.pkcs11
NOW = datetime.now(UTC)
ISSUER = pki.ca("Factory")
CHALLENGE = b"a challenge of the station"


@pytest.fixture
def token(tmp_path: Path) -> SoftToken:
    need("softhsm2-util:softhsm2")
    made = make_token(tmp_path / "token", "unit", PIN)
    made.see()
    return made


@pytest.fixture
def place(token: SoftToken) -> str:
    return f"{token.uri}?module-path={token.module}&pin-source=file:{token.pin_file}"


def issued(shown: Shown) -> Certificates:
    class Public:
        def public_key(self) -> object:
            return parse(shown.request).public_key()

    made = pki.certificate("device", Public(), ISSUER).certificate  # type: ignore[arg-type]
    return Certificates(made.public_bytes(Encoding.DER), b"", b"")


def code_of(caught: pytest.ExceptionInfo[HoldfastError]) -> str:
    return caught.value.code


def test_whole_flow_and_again(place: str) -> None:
    examiner = examiner_for(place, ())
    names = set()
    certificates: Certificates | None = None
    for _ in range(2):
        unit: Unit = open_unit(place)
        try:
            endorsement = unit.endorsement()
            examiner.endorsement(endorsement, NOW)
            names.add(examiner.identify(endorsement))
            shown = unit.keys(MODEL, SERIAL)
            proved = examiner.keys(shown, endorsement, MODEL, SERIAL)
            assert proved.iak == b""
            assert examiner.seal(proved, endorsement, os.urandom) is None
            certificates = certificates or issued(shown)
            unit.install(certificates)
            examiner.read_back(unit.read_back(CHALLENGE), certificates, CHALLENGE)
            assert unit.lock() == ()
            with pytest.raises(KeyStoreError):
                unit.activate(SealedSecret(b"", b""))
        finally:
            unit.close()
    assert len(names) == 1
    assert "pin" not in unit.place


def test_other_certificate_is_not_overwritten(place: str) -> None:
    unit = open_unit(place)
    try:
        shown = unit.keys(MODEL, SERIAL)
        unit.install(issued(shown))
        with pytest.raises(KeyStoreError) as caught:
            unit.install(issued(shown))
        assert code_of(caught) == "factory.token-taken"
    finally:
        unit.close()


def test_lies_of_a_token_are_refused(place: str) -> None:
    examiner = examiner_for(place, ())
    unit = open_unit(place)
    try:
        endorsement, shown = unit.endorsement(), unit.keys(MODEL, SERIAL)
        certificates = issued(shown)
        unit.install(certificates)
        read = unit.read_back(CHALLENGE)
    finally:
        unit.close()
    other = build(pki.new_key(), pki.name("x", SERIAL))
    lies = (
        (lambda: examiner.identify(Endorsement(token="//")), "token.unnamed"),
        (lambda: examiner.endorsement(Endorsement(), NOW), "token.unnamed"),
        (
            lambda: examiner.keys(replace(shown, request=other), endorsement, MODEL, SERIAL),
            "devid.swapped",
        ),
        (lambda: examiner.keys(shown, endorsement, MODEL, "HF-0002"), "devid.serial"),
        (lambda: examiner.keys(shown, endorsement, "Switch", SERIAL), "devid.model"),
        (
            lambda: examiner.keys(
                replace(shown, request=shown.request[:-1] + b"\0"), endorsement, MODEL, SERIAL
            ),
            "csr.pop",
        ),
        (
            lambda: examiner.read_back(replace(read, idevid=b""), certificates, CHALLENGE),
            "inspection.certificate",
        ),
        (lambda: examiner.read_back(read, certificates, b"another"), "signature.invalid"),
    )
    for lie, code in lies:
        with pytest.raises(TrustError) as caught:
            lie()
        assert code_of(caught) == code


def test_place_without_module_or_pin_is_refused(token: SoftToken) -> None:
    with pytest.raises(ConfigError):
        open_unit(token.uri)
