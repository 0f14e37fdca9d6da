"""The boundary: whatever a client sends, the site answers; the transcript keeps it, bounded and redacted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.wire.brski.messages import MEDIA_TYPE
from holdfast.wire.model import HttpRequest
from holdfast_sim.site import Site
from holdfast_sim.transcript import MAX_BODY_BYTES, REDACTED, Transcript
from sim.actors import SERIAL, Bench

PATHS = [
    *(
        f"/.well-known/est/{name}"
        for name in ("cacerts", "csrattrs", "simpleenroll", "simplereenroll", "a/b/c", "")
    ),
    *(f"/.well-known/brski/{name}" for name in ("requestvoucher", "voucher_status", "enrollstatus", "x")),
    "/.well-known/brski/requestauditlog",
    "/",
    "",
    "*",
]
TYPES = ["application/pkcs10", MEDIA_TYPE, "application/json", "", "text/plain"]
BENCH = Bench.make()
VOUCHER = BENCH.pvr()
CSR = BENCH.csr()


@settings(max_examples=at_least(300), suppress_health_check=[HealthCheck.too_slow])
@given(
    server=st.sampled_from(["registrar", "masa", "application"]),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.sampled_from(PATHS) | st.text(max_size=30),
    kind=st.sampled_from(TYPES),
    body=st.binary(max_size=200) | st.just(b'{"version":1,"status":"x"}') | st.just(b"[" * 5000),
    known=st.booleans(),
)
def test_any_request_gets_an_answer(
    server: Any, method: str, path: str, kind: str, body: bytes, known: bool
) -> None:
    request = HttpRequest(method, path, (("Content-Type", kind), ("Authorization", "Digest a=b")), body)
    answer = BENCH.site.answer(server, request, BENCH.peer() if known else BENCH.stranger)
    assert 200 <= answer.response.status < 500
    if answer.response.status >= 400:
        assert (answer.response.header("Content-Type") or "").startswith("text/plain")


@settings(max_examples=at_least(400))
@given(st.data())
def test_mutated_messages_get_an_answer(data: st.DataObject) -> None:
    original = bytearray(data.draw(st.sampled_from([VOUCHER, CSR])))
    for _ in range(data.draw(st.integers(1, 3))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del original[data.draw(st.integers(0, len(original) - 1)) :]
    answers = [BENCH.enroll(bytes(original)), BENCH.ask_voucher(bytes(original))]
    headers = (("Content-Type", MEDIA_TYPE),)
    request = HttpRequest("POST", "/.well-known/brski/requestvoucher", headers, bytes(original))
    answers.append(BENCH.send(request, BENCH.stranger, "masa"))
    for answer in answers:
        assert answer.status in (200, 400, 401, 403, 404, 406), answer.body


def test_a_mistake_of_ours_is_said_not_hidden(bench: Bench) -> None:
    """The fault wants a key that a manufacturer from outside need not give."""
    from dataclasses import replace

    from holdfast_sim.faults import Fault

    bench.world.manufacturer = replace(bench.world.manufacturer, issuing=None)
    bench.site.faults.add(Fault.parse("requestvoucher:idevid-signer"))
    answer = bench.ask_voucher()
    assert answer.status == 500
    assert b"sim.manufacturer" in answer.body


class TestTranscript:
    def test_lines(self, bench: Bench, tmp_path: Path) -> None:
        bench.enroll(bench.csr(), bench.peer(), "simpleenroll", ("Authorization", "Basic c2VjcmV0"))
        bench.ask_voucher()
        bench.site.transcript.save(tmp_path / "log")
        enrolled, vouched = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
        assert enrolled["status"] == 200
        assert ["Authorization", REDACTED] in enrolled["request_headers"]
        assert "c2VjcmV0" not in (tmp_path / "log").read_text()
        assert SERIAL in enrolled["client"]
        assert vouched["request_body"].startswith("hex:30")
        assert str(bench.site.transcript).count("\n") == 1
        assert "simpleenroll -> 200" in str(bench.site.transcript)

    def test_faults_are_named(self) -> None:
        bench = Bench.make("cacerts:empty", "cacerts:drop-after")
        bench.get("cacerts", bench.stranger)
        (entry,) = bench.site.transcript
        assert entry.faults == ("cacerts:empty", "cacerts:drop-after")
        assert entry.dropped
        assert "anonymous" in str(entry)
        assert "connection dropped" in str(entry)

    def test_bounds(self, bench: Bench) -> None:
        site = Site(bench.world, transcript=Transcript(limit=3))
        big = HttpRequest("POST", "/", (), b"\n" * (MAX_BODY_BYTES + 100))
        for _ in range(5):
            site.answer("registrar", big, bench.stranger)
        entries = list(site.transcript)
        assert len(entries) == len(site.transcript) == 3
        assert entries[0].request_length == MAX_BODY_BYTES + 100
        assert len(entries[0].request_body) == MAX_BODY_BYTES


@pytest.mark.parametrize("kind", ["pending", "status", "redirect"])
def test_faults_in_place_of_an_answer_are_noted(kind: str) -> None:
    bench = Bench.make(f"cacerts:{kind}")
    bench.get("cacerts")
    (entry,) = bench.site.transcript
    assert entry.faults == (f"cacerts:{kind}",)


def test_the_application_wants_an_identity_of_its_domain(bench: Bench) -> None:
    hello = HttpRequest("GET", "/")
    answers = [bench.send(hello, peer, "application") for peer in (bench.stranger, bench.peer())]
    assert [answer.status for answer in answers] == [401, 403]
    assert b"no identity of this domain" in answers[1].body
    greeted = bench.send(hello, bench.peer(bench.ldevid()), "application")
    assert json.loads(greeted.body)["hello"] == bench.world.issued[-1].certificate.subject.rfc4514_string()
