"""``holdfast run`` and what its worker says or does not say: the loop gets a span of seconds, or nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import run as run_module
from holdfast.cli.main import main

CONFIG = Path("holdfast.yaml")
REPORT = 'print(\'{"state": "domain none", "wait_seconds": %s}\')'


def worker(script: str) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """A worker that is *script* in the place of the real one."""
    real = subprocess.run

    def start(_command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return real([sys.executable, "-c", script], **options)

    return start


@pytest.mark.parametrize(
    ("script", "seconds"),
    {
        REPORT % "12.5": 12.5,
        REPORT % "0": 0.0,
        REPORT % "NaN": None,
        REPORT % "1e999": None,
        "print('[1]')": None,
        "print('{}')": None,
        "print('{\"error\": 7}')": None,
        'print(\'{"error": {"code": "key.x", "detail": "no TPM"}}\')': None,
        "raise SystemExit(3)": None,
        "import os; os.write(1, b'\\xff\\xfe')": None,
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": None,
    }.items(),
)
def test_whatever_a_worker_says_is_a_span_or_nothing(
    monkeypatch: pytest.MonkeyPatch, script: str, seconds: float | None
) -> None:
    monkeypatch.setattr(subprocess, "run", worker(script))
    told = run_module._step(CONFIG)
    assert told == seconds
    assert 1 <= run_module._seconds(told) <= 3600


def test_a_worker_that_cannot_start_or_hangs_is_survived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (OSError(12, "out of memory"), subprocess.TimeoutExpired("worker", 900)):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(subprocess, "run", fails)
        assert run_module._step(CONFIG) is None
    said = capsys.readouterr().err
    assert "out of memory" in said
    assert "killed after 900 s" in said


def test_a_signal_while_it_waits_stops_it_at_once_and_leaves_no_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[object] = []

    def step(given: object) -> float:
        steps.append(given)
        threading.Timer(0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return 3600.0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(run_module, "_step", step)
    monkeypatch.setattr(run_module, "load", lambda _path: None)
    assert main(["--config", str(CONFIG), "run"]) == 0
    assert len(steps) == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("waits", [3600.0, 0.5])
def test_a_clock_that_is_set_while_it_waits_brings_a_step_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], waits: float
) -> None:
    """FIELD-LESSONS 2: a clock jump must not skip the renewal window."""
    steps: list[object] = []
    reading, writing = os.pipe()

    class Watch:
        descriptor = reading

        def was_set(self) -> bool:
            ready = bool(select.select([reading], [], [], 0)[0])
            if ready:
                os.read(reading, 1)
            return ready

        def __enter__(self) -> Watch:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing was opened."""

    def step(given: object) -> float:
        steps.append(given)
        if len(steps) == 1:
            threading.Timer(0, os.write, (writing, b"!")).start()
            return waits
        threading.Timer(0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return 3600.0

    monkeypatch.setattr(run_module, "ClockWatch", Watch)
    monkeypatch.setattr(run_module, "_step", step)
    monkeypatch.setattr(run_module, "load", lambda _path: None)
    assert main(["--config", str(CONFIG), "run"]) == 0
    assert len(steps) == 2
    if waits > 1:
        assert "the clock was set" in capsys.readouterr().out
    os.close(reading)
    os.close(writing)
