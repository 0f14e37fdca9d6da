"""Whatever a manifest, a batch file or a row of the ledger holds: named errors, and nothing half taken in."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire import cms, manifest, oids
from holdfast.wire.errors import HoldfastError, LocalProtocolError, StateCorrupt
from holdfast_factory.line.batch import Answers, Requests, open_batch
from holdfast_factory.line.entries import read_body

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "GW-1")])
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
SIGNER = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), 1, START, END).sign(KEY, hashes.SHA256())
DER = base64.b64encode(SIGNER.public_bytes(cms.Encoding.DER)).decode()
HONEST: dict[str, Any] = {
    "format": manifest.FORMAT,
    "audience": "masa",
    "organization": "Works",
    "model": "Gateway",
    "made": "2026-11-24T08:00:00Z",
    "checkpoint": {"ledger": "l", "seq": 7, "hash": "ab" * 32},
    "devices": [
        {"serial": "GW-1", "idevid": DER, "iak": "", "endorsement": "", "sealed": "2026-11-24T08:00:00Z"}
    ],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _signed(content: bytes) -> bytes:
    return cms.sign(content, oids.CT_DATA, KEY, SIGNER)


def _refused_by_name(der: bytes) -> None:
    for read in (
        lambda: manifest.decode(der, SIGNER),
        lambda: open_batch(der, SIGNER, Requests),
        lambda: open_batch(der, SIGNER, Answers),
    ):
        try:
            read()
        except LocalProtocolError as error:
            raise AssertionError("taken for our own fault") from error
        except HoldfastError:
            continue


def test_the_honest_one_is_read() -> None:
    assert manifest.decode(_signed(json.dumps(HONEST).encode()), SIGNER).devices[0].serial == "GW-1"


@given(st.binary(max_size=200))
def test_any_octets(octets: bytes) -> None:
    _refused_by_name(octets)
    _refused_by_name(_signed(octets))


@given(st.sampled_from(sorted(HONEST)), JSON, st.sampled_from(sorted(HONEST["devices"][0])), JSON)
def test_any_member_is_any_value(member: str, value: object, inner: str, other: object) -> None:
    _refused_by_name(_signed(json.dumps(HONEST | {member: value}).encode()))
    device = HONEST["devices"][0] | {inner: other}
    _refused_by_name(_signed(json.dumps(HONEST | {"devices": [device]}).encode()))


@given(st.text(max_size=60))
def test_any_body_of_an_entry(text: str) -> None:
    try:
        assert isinstance(read_body(text), dict)
    except StateCorrupt:
        return


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5_000, '{"a":1e999}'])
def test_deep_and_great_bodies(text: str) -> None:
    with pytest.raises(StateCorrupt):
        read_body(text)
