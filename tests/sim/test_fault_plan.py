"""Faults are declared, refused where they cannot happen, and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import ConfigError
from holdfast_sim.faults import EVERYWHERE, KINDS, Fault, FaultPlan, load
from sim.actors import Bench


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cacerts:empty", Fault("cacerts", "empty")),
        ("requestvoucher:wrong-nonce:3", Fault("requestvoucher", "wrong-nonce", 3)),
        ("*:status:code=503", Fault("*", "status", 0, (("code", "503"),))),
        (
            "simpleenroll:redirect:1:to=https://[::1]:8443/x?a=b:code=302",
            Fault("simpleenroll", "redirect", 1, (("to", "https://[::1]:8443/x?a=b"), ("code", "302"))),
        ),
        (
            "cacerts:pending:2:retry-after=5:after=1",
            Fault("cacerts", "pending", 2, (("retry-after", "5"), ("after", "1"))),
        ),
    ],
)
def test_parse(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cacerts",
        "nowhere:empty",
        "cacerts:unheard-of",
        "cacerts:wrong-nonce",
        "simpleenroll:no-pin",
        "registrar:empty",
        "cacerts:empty:x",
        "cacerts:empty:after=-1",
        "cacerts:empty:after=many",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Fault.parse(text)
    assert refusal.value.code == "sim.fault"


@given(st.text(alphabet=":=*abcdeimnopstuy0123456789-\u0663 ", max_size=40) | st.text(max_size=20))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        fault = Fault.parse(text)
    except ConfigError:
        return
    assert fault.kind in KINDS[fault.where]


LISTED = """
- requestvoucher:wrong-nonce:1
- {where: cacerts, kind: status, times: 2, args: {code: 503, retry-after: 5}}
"""


def test_a_file_of_faults() -> None:
    value = yaml.safe_load(LISTED)
    expected = (
        Fault("requestvoucher", "wrong-nonce", 1),
        Fault("cacerts", "status", 2, (("code", "503"), ("retry-after", "5"))),
    )
    assert load(value) == load(json.loads(json.dumps(value))) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"where": "cacerts"}],
        [{"where": ["cacerts"], "kind": "empty"}],
        [{"where": "cacerts", "kind": "empty", "times": True}],
        [{"where": "cacerts", "kind": "empty", "args": []}],
        [{"where": "cacerts", "kind": "empty", "more": 1}],
        [{"where": "cacerts", "kind": "empty", "times": -1}],
    ],
)
def test_a_bad_file(value: object) -> None:
    with pytest.raises(ConfigError):
        load(value)


def test_counting() -> None:
    plan = FaultPlan([Fault.parse("cacerts:empty:2:after=1")])
    assert [plan.due("cacerts", "empty") for _ in range(5)] == [False, True, True, False, False]
    assert not plan.due("csrattrs", "empty")
    assert len(plan.applied) == 2
    plan.clear()
    plan.add(Fault.parse("*:empty"))
    assert all(plan.due(where, "empty") for where in ("cacerts", "enrollstatus", EVERYWHERE))
    assert not plan.due("cacerts", "pem")


def test_the_next_of_two_equal_faults_follows_the_first() -> None:
    plan = FaultPlan(map(Fault.parse, ["cacerts:status:1:code=500", "cacerts:status:1:code=503"]))
    codes = [
        fault and fault.number("code", 0) for fault in (plan.take("cacerts", "status") for _ in range(3))
    ]
    assert codes == [500, 503, None]


def test_a_fault_waits_for_its_occasion(bench: Bench) -> None:
    """A request that is refused before anything is issued does not use up a fault of issuing."""
    bench.site.faults.add(Fault.parse("simpleenroll:key-mismatch:1"))
    assert bench.enroll(peer=bench.stranger).status == 401
    assert not bench.site.faults.applied
    assert bench.enroll().status == 200
    assert [fault.kind for fault in bench.site.faults.applied] == ["key-mismatch"]


def test_everywhere_means_unknown_paths_too(bench: Bench, tmp_path: Path) -> None:
    bench.site.faults.add(Fault.parse("*:status:code=500"))
    assert bench.get("no-such-thing").status == 500
    assert bench.ask_voucher().status == 500
