"""Numbers for monitoring: an independent parser reads them, the file changes only with them, and the endpoint
serves whoever asks in time."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_families

from daemon.test_agent import IDENTITY, Heard, report
from holdfast.resident.messages import METRICS_FAILED
from holdfast.resident.metrics import MOST_SERIES, Metrics
from holdfast.resident.publish import Publisher
from holdfast.resident.reports import Effect, Refusal, Settings, Trouble
from holdfast.resident.scrape import CLIENT_SECONDS, MAX_CLIENTS, MAX_REQUEST, Endpoint

PATIENCE = 60.0
ENROLLED = Effect("Enroll", "ldevid", "est", "0af3", "CertificateIssued", 0.1)
FULL = report(
    identities=(IDENTITY, IDENTITY._replace(name="mqtt", state="none", not_after=0.0, attempts=4)),
    effects=(ENROLLED, ENROLLED, ENROLLED._replace(protocol="cmp", result="AttemptFailed")),
    clock="trusted",
    tpm_commands=5,
    tpm_seconds=0.25,
    lockout=2,
)
DAY = 86400.0


def samples(text: str) -> dict[str, float]:
    """Every sample by name and labels, as the independent parser reads it."""
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_independent_parser_reads_every_number() -> None:
    metrics = Metrics(wall=lambda: IDENTITY.not_after - 30 * DAY)
    metrics.count(FULL)
    metrics.count(FULL._replace(trouble=Trouble("est.x", "d")))
    metrics.count(Refusal(Trouble("worker.crashed", "it fell")))
    read = samples(metrics.text(scraped=True))
    assert {
        "holdfast_attempts_total,result=ok": 1,
        "holdfast_attempts_total,result=trouble": 1,
        "holdfast_attempts_total,result=broken": 1,
        "holdfast_outcomes_total,effect=Enroll,protocol=est,result=CertificateIssued": 4,
        "holdfast_outcomes_total,effect=Enroll,protocol=cmp,result=AttemptFailed": 2,
        "holdfast_tpm_commands_total": 10,
        "holdfast_tpm_seconds_total": 0.5,
        "holdfast_tpm_lockout_counter": 2,
        "holdfast_clock,holdfast_clock=trusted": 1,
        "holdfast_clock,holdfast_clock=unknown": 0,
        "holdfast_identity,holdfast_identity=active,identity=ldevid": 1,
        "holdfast_identity,holdfast_identity=active,identity=mqtt": 0,
        "holdfast_failed_attempts,identity=mqtt": 4,
        "holdfast_certificate_expiry_timestamp_seconds,identity=ldevid": 2e9,
        "holdfast_certificate_expiry_days,identity=ldevid": 30.0,
    }.items() <= read.items()
    assert not any("mqtt" in name for name in read if "expiry" in name)


def test_the_collector_s_older_format_reads_the_file_as_well() -> None:
    metrics = Metrics()
    metrics.count(FULL)
    found = {
        s.name: s.value for family in older_families(metrics.text(scraped=False)) for s in family.samples
    }
    assert found["holdfast_tpm_commands_total"] == 5


def test_before_the_first_attempt_there_are_counters_only() -> None:
    assert set(samples(Metrics().text(scraped=True)).values()) == {0}


def test_names_in_the_words_of_others_stay_labels() -> None:
    metrics = Metrics()
    evil = 'x"} 1\nholdfast_fake 7\\'
    metrics.count(report(effects=(ENROLLED._replace(result=evil),)))
    read = samples(metrics.text(scraped=False))
    assert read[f"holdfast_outcomes_total,effect=Enroll,protocol=est,result={evil}"] == 1
    assert "holdfast_fake" not in read


def test_a_worker_cannot_fill_the_memory_with_names() -> None:
    metrics = Metrics()
    for n in range(MOST_SERIES + 50):
        metrics.count(report(effects=(ENROLLED._replace(result=f"r{n}"),)))
    assert len(metrics._outcomes) == MOST_SERIES


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


def test_the_file_is_written_when_a_number_changed(tmp_path: Path, selector: selectors.BaseSelector) -> None:
    path = tmp_path / "holdfast.prom"
    publisher = Publisher(Metrics(), Heard(), selector)
    publisher.finished(FULL)
    publisher.configured(Settings(metrics_file=str(path)))
    assert not path.exists()
    publisher.finished(FULL)
    assert samples(path.read_text())["holdfast_attempts_total,result=ok"] == 2
    assert path.stat().st_mode & 0o777 == 0o644
    before = path.stat().st_ino
    publisher.finished(FULL)
    assert path.stat().st_ino != before, "replaced, never rewritten under a reader"
    assert [p.name for p in tmp_path.iterdir()] == ["holdfast.prom"]
    publisher._metrics.count = lambda _result: None  # type: ignore[method-assign]
    before = path.stat().st_ino
    publisher.finished(FULL)
    assert path.stat().st_ino == before, "nothing changed"


def test_a_file_that_cannot_be_written_is_said_and_survived(
    tmp_path: Path, selector: selectors.BaseSelector
) -> None:
    log = Heard()
    publisher = Publisher(Metrics(), log, selector)
    publisher.configured(Settings(metrics_file=str(tmp_path / "missing" / "holdfast.prom")))
    publisher.finished(FULL)
    assert log.kinds() == [METRICS_FAILED]
    link = tmp_path / "holdfast.prom.new"
    link.symlink_to(tmp_path / "target")
    publisher.configured(Settings(metrics_file=str(tmp_path / "holdfast.prom")))
    publisher.finished(FULL)
    assert log.kinds() == [METRICS_FAILED] * 2
    assert not (tmp_path / "target").exists()


def test_the_endpoint_opens_and_closes_with_the_settings(selector: selectors.BaseSelector) -> None:
    log = Heard()
    publisher = Publisher(Metrics(), log, selector)
    publisher.configured(Settings(metrics_listen=("127.0.0.1", 0)))
    assert publisher.endpoint is not None
    publisher.configured(Settings())
    assert publisher.endpoint is None
    assert not selector.get_map()
    publisher.configured(Settings(metrics_listen=("0.0.0.0", 0)))
    assert publisher.endpoint is None
    assert log.kinds() == [METRICS_FAILED]


class Served:
    """An endpoint and the loop around it."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self.endpoint = Endpoint(socket.create_server(("127.0.0.1", 0)), selector, lambda: "a 1\n# EOF\n")

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.endpoint.port))
        client.setblocking(False)
        return client

    def until_closed(self, client: socket.socket) -> bytes:
        data = b""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for key, mask in self.selector.select(0):
                key.data(mask)
            try:
                received = client.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return data
            if not received:
                return data
            data += received
        pytest.fail("never closed")


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", b"a 1\n# EOF\n"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK", b"a 1\n# EOF\n"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found", b""),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b""),
        (b"\x16\x03\x01\r\n\r\n", b"405 Method Not Allowed", b""),
    ],
)
def test_the_endpoint_answers(
    selector: selectors.BaseSelector, request_: bytes, status: bytes, body: bytes
) -> None:
    served = Served(selector)
    with served.connect() as client:
        client.send(request_)
        head, _, told = served.until_closed(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert told == body
    served.endpoint.close()


def test_the_endpoint_bounds_what_it_reads_and_how_long_it_waits(selector: selectors.BaseSelector) -> None:
    served = Served(selector)
    with served.connect() as client:
        client.send(b"x" * (MAX_REQUEST + 1))
        assert served.until_closed(client) == b""
    with served.connect() as client:
        client.send(b"GET ")
        for key, mask in selector.select(PATIENCE):
            key.data(mask)
        assert served.endpoint.next_at() <= time.monotonic() + CLIENT_SECONDS
        served.endpoint.tick(time.monotonic() + CLIENT_SECONDS)
        assert served.until_closed(client) == b""
    clients = [served.connect() for _ in range(MAX_CLIENTS + 1)]
    while len(served.endpoint._clients) < MAX_CLIENTS or clients[0].fileno() < 0:
        for key, mask in selector.select(PATIENCE):
            key.data(mask)
    assert served.until_closed(clients[0]) == b""
    for client in clients:
        client.close()
    served.endpoint.close()
    assert not selector.get_map()
