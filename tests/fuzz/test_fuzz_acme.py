"""Whatever an ACME server, an attestation CA or a device sends, only errors of our family come out."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.wire.acme import jose
from holdfast.wire.acme.attest import judge, read_object, write_object
from holdfast.wire.acme.download import alternates, read_chain
from holdfast.wire.acme.objects import Directory, read, read_authorization, read_order, read_problem
from holdfast.wire.acme.session import AcmeLimits
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpResponse, Pending
from holdfast.wire.tpm import akca
from holdfast.wire.tpm.attested import parse_certify, verify_statement
from holdfast.wire.tpm.public import parse_public
from wire.acme_parties import MOMENT, NOW, TLS, Case, new_key
from wire.tpm_statements import Authority, SoftTpm, public_area

AUTHORITY = Authority(NOW)
TPM = SoftTpm(AUTHORITY)
STATEMENT = TPM.certify("t.k")
OBJECT = write_object(STATEMENT)
AREA = public_area(TPM.key.public_key())
JSON = (("Content-Type", "application/json"),)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
named = st.sampled_from(
    ["status", "authorizations", "finalize", "challenges", "identifier", "type", "url", "token", "error",
     "newNonce", "newAccount", "newOrder", "meta", "certificate", "detail", "value"]
)  # fmt: skip
objects = st.dictionaries(named, values, max_size=8)


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """*whole* cut, flipped, or with octets put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 2)):
            case 0:
                del data[at:]
            case 1 if data:
                data[at] ^= draw(st.integers(1, 255))
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@settings(max_examples=at_least(100))
@given(objects | values, st.binary(max_size=60))
def test_whatever_json_a_server_sends(value: Any, raw: bytes) -> None:
    for body in (json.dumps(value).encode(), raw):
        resp = HttpResponse(200, JSON, body)
        for reader in (read_order, read_authorization, lambda r: read(r, Directory, "it", clause="")):
            with contextlib.suppress(HoldfastError):
                reader(resp)
        str(read_problem(resp))


@settings(max_examples=at_least(100))
@given(st.binary(max_size=200), st.text(max_size=200))
def test_whatever_chain_or_link_a_server_sends(raw: bytes, text: str) -> None:
    headers = (("Content-Type", "application/pem-certificate-chain"), ("Link", text))
    with contextlib.suppress(HoldfastError):
        read_chain(HttpResponse(200, headers, raw), AcmeLimits())
    alternates(HttpResponse(200, headers, raw))


@settings(max_examples=at_least(100))
@given(spoiled(OBJECT) | st.binary(max_size=120) | values.map(cbor2.dumps))
def test_whatever_object_a_device_sends(data: bytes) -> None:
    with contextlib.suppress(HoldfastError):
        judge(read_object(data), "t.k", (AUTHORITY.certificate,), MOMENT, identifier="SN-17")


@settings(max_examples=at_least(100))
@given(spoiled(AREA), spoiled(STATEMENT.statement), spoiled(STATEMENT.signature))
def test_whatever_structures_a_tpm_sends(area: bytes, statement: bytes, signature: bytes) -> None:
    for parse in (
        lambda: parse_public(area),
        lambda: parse_certify(statement),
        lambda: verify_statement(statement, signature, TPM.ak.public_key()),
    ):
        with contextlib.suppress(HoldfastError):
            parse()


@settings(max_examples=at_least(100))
@given(spoiled(STATEMENT.statement))
def test_no_spoiled_statement_is_believed(statement: bytes) -> None:
    """Every octet is under the signature."""
    if statement == STATEMENT.statement:
        return
    with pytest.raises(HoldfastError):
        judge(
            replace(STATEMENT, statement=statement), "t.k", (AUTHORITY.certificate,), MOMENT, identifier=None
        )


@settings(max_examples=at_least(100))
@given(values, st.binary(max_size=100))
def test_whatever_an_attestation_ca_or_its_client_sends(value: Any, raw: bytes) -> None:
    for body in (json.dumps(value).encode(), raw):
        for kind in (akca.Application, akca.Challenge, akca.Response, akca.Certified):
            with contextlib.suppress(HoldfastError):
                akca.decode(body, kind)
    akca.split(raw)


@settings(max_examples=at_least(100))
@given(st.binary(max_size=64))
def test_base64url_comes_back(data: bytes) -> None:
    assert jose.unb64(jose.b64(data)) == data


@settings(max_examples=at_least(100))
@given(values)
def test_whatever_key_a_client_names(value: Any) -> None:
    with contextlib.suppress(HoldfastError):
        jose.public_key(
            value if isinstance(value, dict) else {"kty": "EC", "crv": "P-256", "x": value, "y": value}
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), spoiled(b'{"status":"pending","authorizations":["https://acme.example:8443/x"]}'))
def test_one_spoiled_answer_in_an_order(place: int, body: bytes) -> None:
    """Any answer of the conversation is replaced: the outcome is a named error or patience, never a crash."""
    case = Case(key=new_key())
    count = [0]

    def change(_request: Any, answer: HttpResponse) -> HttpResponse:
        count[0] += 1
        return replace(answer, body=body) if count[0] == place else answer

    case.change = change
    try:
        outcome = case.drive(case.protocol.enroll(case.request, TLS, MOMENT))
        for _ in range(6):
            if not isinstance(outcome, Pending):
                break
            outcome = case.drive(case.protocol.resume(case.request, outcome.resume, TLS, MOMENT))
    except HoldfastError:
        pass
