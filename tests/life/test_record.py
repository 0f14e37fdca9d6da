"""The record's text form: nothing is lost, and what cannot be read says which field."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.keys.api import KeyRef
from holdfast.life.record import (
    Anchor,
    Credential,
    CredentialState,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Provenance,
    Schedule,
    Transaction,
    TransactionState,
    Trouble,
    decode,
    encode,
)
from holdfast.wire.errors import SchemaTooNew, StateCorrupt
from holdfast.wire.model import KeyAlgorithm, Purpose

T0 = datetime(2027, 1, 1, tzinfo=UTC)
naive = (datetime(2020, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001 - hypothesis wants naive bounds
times = st.datetimes(*naive, timezones=st.just(UTC))
maybe_times = st.none() | times
refs = st.text(max_size=20).map(KeyRef)
troubles = st.builds(Trouble, st.text(max_size=9), st.text(), st.text(max_size=9), st.text(max_size=9), times)
schedules = st.builds(Schedule, maybe_times, st.integers(0, 2**40), st.none() | troubles)
anchors = st.builds(Anchor, st.binary(max_size=40), st.sampled_from(Provenance), times)
ders = st.lists(st.binary(max_size=40), max_size=3).map(tuple)
records = st.builds(
    DeviceRecord,
    times,
    st.builds(
        Domain,
        state=st.sampled_from(DomainState),
        registrar=st.text(max_size=20),
        pvr=st.binary(max_size=40),
        deadline=maybe_times,
        anchors=st.lists(anchors, max_size=2).map(tuple),
        intermediates=ders,
    ),
    st.lists(
        st.builds(
            Identity,
            st.text(max_size=8),
            st.builds(Credential, st.sampled_from(CredentialState), refs, ders, st.integers(0, 9)),
            st.builds(
                Transaction,
                state=st.sampled_from(TransactionState),
                purpose=st.sampled_from(Purpose),
                key=refs,
                algorithm=st.sampled_from(KeyAlgorithm),
                csr=st.binary(max_size=30),
                chain=ders,
            ),
            st.lists(refs, max_size=2).map(tuple),
            schedules,
        ),
        max_size=3,
    ).map(tuple),
    schedules,
)


@given(records)
def test_nothing_is_lost(record: DeviceRecord) -> None:
    assert decode(encode(record)) == record


def test_a_newer_schema_is_not_read_as_if_it_were_ours() -> None:
    with pytest.raises(SchemaTooNew) as caught:
        decode(b'{"schema":3,"record":{"something":"else"}}')
    assert "schema 3" in caught.value.detail


@pytest.mark.parametrize("schema", [0, -1])
def test_a_schema_that_there_never_was_is_no_record(schema: int) -> None:
    with pytest.raises(StateCorrupt) as caught:
        decode(
            encode(DeviceRecord(datetime(2027, 1, 1, tzinfo=UTC))).replace(
                b'"schema":2', b'"schema":%d' % schema
            )
        )
    assert f"schema {schema}" in caught.value.detail


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda r: r.pop("floor"), "floor"),
        (lambda r: r["domain"].update(state="owned"), "$.record.domain.state"),
        (lambda r: r["domain"].update(pvr="***"), "$.record.domain.pvr"),
        (lambda r: r.update(floor="yesterday"), "$.record.floor"),
        (lambda r: r.update(identities={}), "$.record.identities"),
    ],
)
def test_what_cannot_be_read_is_named(damage: object, place: str) -> None:
    whole = json.loads(encode(DeviceRecord(T0)))
    damage(whole["record"])  # type: ignore[operator]
    with pytest.raises(StateCorrupt) as caught:
        decode(json.dumps(whole).encode())
    assert place in caught.value.detail


@given(st.binary(max_size=80))
def test_garbage_is_corrupt_and_nothing_else(data: bytes) -> None:
    with pytest.raises(StateCorrupt):
        decode(data)


def test_key_refs_name_every_key_and_only_keys() -> None:
    entry = Identity(
        "a", Credential(key=KeyRef("1")), Transaction(key=KeyRef("2")), retiring=(KeyRef("3"), KeyRef("2"))
    )
    record = DeviceRecord(T0 + timedelta(1)).with_identity(entry).with_identity(Identity("b"))
    assert record.key_refs() == {"1", "2", "3"}
    assert [i.name for i in record.identities] == ["a", "b"]
