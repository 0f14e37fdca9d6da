"""The BRSKI records: strict out, lenient in, bounded, and every refusal names its leaf."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.brski.leaves import JSON_DEPTH, JSON_LIMIT
from holdfast.wire.brski.messages import RegistrarVoucherRequest, Telemetry, Voucher, VoucherRequest
from holdfast.wire.errors import HoldfastError, RemoteProtocolError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
MOMENT = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-4)), timezone(timedelta(hours=5, minutes=30))]),
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
OCTETS = st.binary(min_size=1, max_size=80)
MAYBE = st.none


def voucher_json(**leaves: object) -> bytes:
    return json.dumps({"ietf-voucher:voucher": {"serial-number": "1", **leaves}}).encode()


def refusal(data: bytes, kind: type = Voucher) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        kind.decode(data)
    return caught.value


@given(
    st.builds(
        Voucher,
        serial_number=TEXT,
        pinned_domain_cert=MAYBE() | OCTETS,
        nonce=MAYBE() | TEXT,
        assertion=MAYBE() | TEXT,
        created_on=MAYBE() | MOMENT,
        expires_on=MAYBE() | MOMENT,
        idevid_issuer=MAYBE() | OCTETS,
        domain_cert_revocation_checks=MAYBE() | st.booleans(),
        last_renewal_date=MAYBE() | MOMENT,
    )
)
def test_a_voucher_comes_back_as_it_was_said(voucher: Voucher) -> None:
    assert Voucher.decode(voucher.encode()) == voucher


@given(
    st.builds(
        VoucherRequest,
        serial_number=TEXT,
        nonce=MAYBE() | TEXT,
        assertion=MAYBE() | TEXT,
        proximity_registrar_cert=MAYBE() | OCTETS,
        created_on=MAYBE() | MOMENT,
    )
)
def test_a_pledge_request_comes_back_as_it_was_said(request_: VoucherRequest) -> None:
    assert VoucherRequest.decode(request_.encode()) == request_


@given(
    st.builds(
        RegistrarVoucherRequest,
        serial_number=TEXT,
        nonce=MAYBE() | TEXT,
        assertion=MAYBE() | TEXT,
        created_on=MAYBE() | MOMENT,
        idevid_issuer=MAYBE() | OCTETS,
        prior_signed_voucher_request=MAYBE() | OCTETS,
    )
)
def test_a_registrar_request_comes_back_as_it_was_said(request_: RegistrarVoucherRequest) -> None:
    assert RegistrarVoucherRequest.decode(request_.encode()) == request_


@given(
    st.builds(
        Telemetry,
        status=st.booleans(),
        reason=MAYBE() | TEXT,
        reason_context=MAYBE() | st.dictionaries(TEXT, TEXT, max_size=3),
        version=st.integers(0, 9),
    )
)
def test_telemetry_comes_back_as_it_was_said(telemetry: Telemetry) -> None:
    assert Telemetry.decode(telemetry.encode()) == telemetry


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_nothing_but_our_errors_leaves_a_decoder(data: bytes) -> None:
    for kind in (Voucher, VoucherRequest, RegistrarVoucherRequest, Telemetry):
        with pytest.raises(HoldfastError):
            kind.decode(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LEAF_NAMES = st.sampled_from(
    [
        "serial-number", "nonce", "assertion", "created-on", "expires-on", "idevid-issuer",
        "pinned-domain-cert", "domain-cert-revocation-checks", "last-renewal-date", "surprise",
    ]
)  # fmt: skip


@given(st.dictionaries(LEAF_NAMES, JSON_VALUES, max_size=6))
def test_leaves_of_any_kind_give_a_voucher_or_a_named_error(leaves: dict[str, object]) -> None:
    try:
        said = Voucher.decode(json.dumps({"ietf-voucher:voucher": leaves}).encode())
    except RemoteProtocolError as error:
        assert error.code.startswith("voucher.")  # noqa: PT017
    else:
        assert said.serial_number == leaves["serial-number"]


def test_written_json_has_the_wrapper_the_names_and_the_forms_of_the_rfc() -> None:
    request = VoucherRequest(
        "AB-1", "bm9uY2U=", "proximity", b"\x00\xff\xfe", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    assert json.loads(request.encode()) == {
        "ietf-voucher-request:voucher": {
            "assertion": "proximity",
            "created-on": "2026-01-02T03:04:05.000Z",
            "nonce": "bm9uY2U=",
            "serial-number": "AB-1",
            "proximity-registrar-cert": "AP/+",
        }
    }
    assert json.loads(Telemetry(False, "voucher.nonce", {"code": "voucher.nonce"}).encode()) == {
        "version": 1,
        "status": False,
        "reason": "voucher.nonce",
        "reason-context": {"code": "voucher.nonce"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-04-13T17:43:24.589-04:00", datetime(2021, 4, 13, 21, 43, 24, 589000, UTC)),
        ("2021-04-13T21:43:24Z", datetime(2021, 4, 13, 21, 43, 24, tzinfo=UTC)),
        ("2021-04-13t21:43:24.123456789z", datetime(2021, 4, 13, 21, 43, 24, 123456, UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_date_times_with_fraction_and_offset(text: str, expected: datetime) -> None:
    assert Voucher.decode(voucher_json(**{"created-on": text})).created_on == expected


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2021-04-13", "2021-04-13T21:43:24", "2021-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00",
     "9999-12-31T23:59:59-01:00", "2021-04-13T21:43:24.1+99:99", "٢٠٢١-04-13T21:43:24Z"],
)  # fmt: skip
def test_other_times_are_refused_by_name(text: str) -> None:
    assert refusal(voucher_json(**{"expires-on": text})).code == "voucher.expires-on"


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("serial-number", ""), ("serial-number", 42), ("serial-number", None), ("serial-number", "x" * 257),
        ("serial-number", "\ud800"), ("nonce", ["a"]), ("nonce", ""), ("assertion", 2),
        ("pinned-domain-cert", "not base64!"), ("pinned-domain-cert", "AAA"), ("pinned-domain-cert", "AP_-"),
        ("pinned-domain-cert", "AP/+*"),
        ("pinned-domain-cert", {}), ("idevid-issuer", "é"), ("domain-cert-revocation-checks", 1),
        ("domain-cert-revocation-checks", "yes"), ("created-on", 1700000000),
    ],
)  # fmt: skip
def test_a_bad_leaf_is_refused_by_name(leaf: str, value: object) -> None:
    assert refusal(voucher_json(**{leaf: value})).code == f"voucher.{leaf}"


def test_leniency_unknown_leaves_wrapped_base64_and_quoted_booleans() -> None:
    said = Voucher.decode(
        voucher_json(
            **{
                "est-domain": "https://est.example",
                "extensions": ["a", 1],
                "pinned-domain-cert": "AP/+\r\n AP/+",
                "domain-cert-revocation-checks": "false",
            }
        )
    )
    assert said.pinned_domain_cert == b"\x00\xff\xfe" * 2
    assert said.domain_cert_revocation_checks is False


def test_telemetry_quoted_version_and_literal_context() -> None:
    said = Telemetry.decode(b'{"version":"1","status":"true","reason-context":"words"}')
    assert said == Telemetry(True, None, {"value": "words"}, 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"status":true}', "telemetry.version"),
        (b'{"version":1}', "telemetry.status"),
        (b'{"version":true,"status":true}', "telemetry.version"),
        (b'{"version":-1,"status":true}', "telemetry.version"),
        (b'{"version":1,"status":1}', "telemetry.status"),
        (b'{"version":1,"Status":true}', "telemetry.status"),
        (b"[]", "telemetry.json"),
    ],
)
def test_bad_telemetry_is_refused_by_name(data: bytes, code: str) -> None:
    assert refusal(data, Telemetry).code == code


def test_a_request_is_not_a_voucher_and_the_other_way_round() -> None:
    assert refusal(VoucherRequest("1").encode()).code == "voucher.wrapper"
    assert refusal(Voucher("1").encode(), VoucherRequest).code == "voucher-request.wrapper"


def test_a_registrar_request_must_not_carry_the_proximity_certificate() -> None:
    error = refusal(VoucherRequest("1", proximity_registrar_cert=b"x").encode(), RegistrarVoucherRequest)
    assert error.code == "voucher-request.proximity-registrar-cert"


@pytest.mark.parametrize(
    "data",
    [
        b'{"ietf-voucher:voucher":{"serial-number":"1","serial-number":"2"}}',
        b'{"ietf-voucher:voucher":{"serial-number":"1"},"ietf-voucher:voucher":{"serial-number":"2"}}',
        b'{"ietf-voucher:voucher":{"serial-number":"1","x":{"y":1,"y":2}}}',
    ],
)
def test_duplicate_keys_are_refused_at_every_level(data: bytes) -> None:
    assert refusal(data).code == "voucher.duplicate-key"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "voucher.json"),
        (b"\xff\xfe", "voucher.json"),
        (b'{"a":NaN}', "voucher.json"),
        (b'{"a":' + b"1" * 5000 + b"}", "voucher.json"),
        (b'{"a":"' + b"\\" * 1000, "voucher.json"),
        (b"[" * 100_000, "voucher.too-deep"),
        (b'{"a":' * 40_000, "voucher.too-deep"),
        (b" " * (JSON_LIMIT + 1), "voucher.too-large"),
    ],
)
def test_hostile_json_is_refused_before_it_costs(data: bytes, code: str) -> None:
    assert refusal(data).code == code


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    said = Voucher.decode(voucher_json(surprise='[{"' * 10 * JSON_DEPTH + "\\"))
    assert said.serial_number == "1"


def test_a_long_string_of_escapes_is_read_in_linear_time() -> None:
    start = time.process_time()
    refusal(b'"' + b'\\"a' * (JSON_LIMIT // 4))
    assert time.process_time() - start < 2.0
