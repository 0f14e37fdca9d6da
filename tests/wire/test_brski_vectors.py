"""Golden bytes of another implementation: the examples of RFC 8995 appendix C."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, oids
from holdfast.wire.brski.messages import (
    RegistrarVoucherRequest,
    Telemetry,
    VoucherRequest,
    aki,
    masa_url,
    serial_number,
)
from holdfast.wire.brski.verify import Vouched, VoucherTrust, verify_voucher
from holdfast.wire.errors import TrustError
from holdfast.wire.model import ClockState, Moment

VECTORS = Path(__file__).parent.parent / "vectors" / "brski"
SIGNED = datetime(2021, 4, 13, 21, 43, 30, tzinfo=UTC)
NONCE = "-_XE9zK9q8Ll1qylMtLKeg"
SERIAL = "00-D0-E5-F2-00-02"


def der(name: str) -> bytes:
    return (VECTORS / f"rfc8995-{name}.der").read_bytes()


def certificate(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((VECTORS / f"rfc8995-{name}.pem").read_bytes())


def judge(at: datetime, state: ClockState = ClockState.TRUSTED, *, nonce: str = NONCE) -> Vouched:
    """What the pledge of the appendix would have made of its voucher."""
    trust = VoucherTrust(
        manufacturer_anchors=(certificate("vendor-ca"),),
        signer_pins=frozenset(),
        serial_number=serial_number(certificate("idevid")),
        aki=aki(certificate("idevid")),
    )
    seen = (certificate("registrar").public_bytes(Encoding.DER),)
    return verify_voucher(
        der("voucher"), nonce=nonce, trust=trust, peer_chain=seen, now=Moment(at, at, state)
    )


def test_the_voucher_of_the_appendix_holds_at_its_time() -> None:
    vouched = judge(SIGNED)
    assert vouched.pinned == certificate("registrar")
    assert vouched.registrar_chain == (certificate("registrar"),)
    assert vouched.created_on == datetime(2021, 4, 13, 21, 43, 24, 589000, UTC)


def test_the_voucher_of_the_appendix_is_signed_by_its_masa() -> None:
    signed = cms.open_signed(der("voucher"))
    assert signed.signer == certificate("masa")
    assert signed.signing_time == datetime(2021, 4, 13, 21, 43, 24, tzinfo=UTC)


def test_the_voucher_of_the_appendix_has_long_expired_signers() -> None:
    with pytest.raises(TrustError) as caught:
        judge(datetime(2026, 11, 1, tzinfo=UTC))
    assert caught.value.code == "voucher.signer-chain"


def test_a_device_without_clock_built_in_time_accepts_it() -> None:
    assert judge(SIGNED - timedelta(days=30), ClockState.UNKNOWN).pinned == certificate("registrar")


def test_the_voucher_answers_one_nonce_only() -> None:
    with pytest.raises(TrustError) as caught:
        judge(SIGNED, nonce=NONCE + "==")
    assert caught.value.code == "voucher.nonce"


def test_the_pledge_request_of_the_appendix() -> None:
    signed = cms.open_signed(der("pledge-request"))
    request = VoucherRequest.decode(signed.content)
    assert signed.content_type == oids.CT_DATA
    assert (request.serial_number, request.nonce, request.assertion) == (SERIAL, NONCE, "proximity")
    assert request.proximity_registrar_cert == certificate("registrar").public_bytes(Encoding.DER)
    assert serial_number(signed.signer) == SERIAL
    assert masa_url(signed.signer) == "https://highway-test.example.com:9443/.well-known/brski"


def test_the_registrar_request_of_the_appendix_holds_the_pledges() -> None:
    signed = cms.open_signed(der("registrar-request"))
    request = RegistrarVoucherRequest.decode(signed.content)
    assert (request.serial_number, request.nonce) == (SERIAL, NONCE)
    assert request.prior_signed_voucher_request == der("pledge-request")
    assert signed.signer == certificate("registrar")
    assert certificate("owner-ca") in signed.certificates


@pytest.mark.parametrize(("name", "status"), [("voucher-status", False), ("enroll-status", True)])
def test_the_telemetry_of_the_rfc(name: str, status: bool) -> None:
    said = Telemetry.decode((VECTORS / f"rfc8995-{name}.json").read_bytes())
    assert said == Telemetry(status, "Informative human readable message", {"additional": "JSON"}, 1)
