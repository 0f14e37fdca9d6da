"""One worker process: whatever it does costs one attempt, a bounded amount of memory, and nothing else."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from daemon.workers import PATIENCE, REPORT, SETTINGS, outcome, saying, start
from holdfast.resident.attempt import (
    END_SECONDS,
    LONGEST_ALLOWANCE,
    REAP_SECONDS,
    START_SECONDS,
    Attempt,
)
from holdfast.resident.reports import MAX_OUTPUT, Progress, Refusal, Report

ERROR = {"ok": False, "error": {"code": "key.x", "detail": "no TPM", "clause": "", "retry": "backoff"}}
HANG = "import time; time.sleep(3600)"


def broken(result: object) -> str:
    assert isinstance(result, Refusal)
    return result.trouble.code


def test_a_report_comes_through_with_settings_and_progress() -> None:
    progress = {"progress": {"doing": "Enroll", "identity": "ldevid", "allow": 30}}
    attempt = start(saying(SETTINGS, progress, REPORT))
    result = outcome(attempt)
    assert isinstance(result, Report)
    assert (result.state, result.wait, result.identities[0].generation) == (REPORT["state"], 12.5, 3)
    assert attempt.settings is not None
    assert attempt.settings.version == "1.2.3"
    assert attempt.progress == Progress("Enroll", "ldevid", 30)


def test_an_error_that_the_worker_names_is_kept() -> None:
    result = outcome(start(saying(ERROR)))
    assert isinstance(result, Refusal)
    assert (result.trouble.code, result.trouble.detail) == ("key.x", "no TPM")


@pytest.mark.parametrize(
    ("script", "code"),
    {
        "pass": "worker.crashed",
        "raise SystemExit(3)": "worker.crashed",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "worker.crashed",
        "import os; os.close(1)": "worker.crashed",
        "print('no json')": "worker.garbage",
        "print('{}')": "worker.garbage",
        "print('[1]')": "worker.garbage",
        "print('[' * 100000)": "worker.garbage",
        "print('9' * 5000)": "worker.garbage",
        "print('{\"error\": 7}')": "worker.garbage",
        'print(\'{"state": "x", "wait_seconds": NaN, "agent": {}}\')': "worker.garbage",
        'print(\'{"state": "x", "wait_seconds": 1e999, "agent": {}}\')': "worker.garbage",
        "import os; os.write(1, b'\\xff\\xfe\\n')": "worker.garbage",
        "print('x' * 300000)": "worker.garbage",
    }.items(),
)
def test_a_broken_worker_costs_one_attempt(script: str, code: str) -> None:
    assert broken(outcome(start(script))) == code


def test_a_flood_is_cut_off_and_not_kept() -> None:
    attempt = start("import os\nwhile True: os.write(1, b'x' * 65536)")
    assert broken(outcome(attempt)) == "worker.garbage"
    assert attempt._told <= MAX_OUTPUT + (1 << 16)


def test_a_hundred_megabytes_of_lines_are_cut_off() -> None:
    line = saying({"progress": {"doing": "x", "allow": 1}})
    assert broken(outcome(start(f"for _ in range(2000000): {line}"))) == "worker.garbage"


def test_a_hang_is_ended_at_the_deadline_and_with_it_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    attempt = start(
        "import os, time\n"
        "if os.fork() == 0: time.sleep(3600)\n"
        f"open({str(child)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(3600)"
    )
    end = time.monotonic() + PATIENCE
    while not child.exists() and time.monotonic() < end:
        assert attempt.proceed(0) is None
        select.select([], [], [], 0.01)
    group = os.getpgid(attempt.pid)
    assert group == attempt.pid, "it leads a group of its own"
    assert attempt.proceed(START_SECONDS - 1) is None
    assert attempt.deadline == START_SECONDS
    assert broken(outcome(attempt, now=START_SECONDS)) == "worker.late"
    nobody_left(group)


def nobody_left(group: int) -> None:
    """A killed process counts until init has reaped it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        select.select([], [], [], 0.01)
    pytest.fail("a child of the worker lives on")


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_children_that_a_good_worker_leaves_behind_are_ended_too() -> None:
    script = "import os, time\nif os.fork() == 0:\n  os.close(1)\n  time.sleep(3600)\n" + saying(REPORT)
    attempt = start(script)
    assert isinstance(outcome(attempt), Report)
    nobody_left(attempt.pid)


def test_progress_moves_the_deadline_within_bounds() -> None:
    line = {"progress": {"doing": "MakeRequest", "identity": "ldevid", "allow": 900}}
    endless = {"progress": {"doing": "MakeRequest", "identity": "ldevid", "allow": 1e9}}
    for told, longest, expected in (
        (line, 3600.0, 900.0),
        (endless, 36000.0, LONGEST_ALLOWANCE),
        (line, 60.0, 60.0),
    ):
        attempt = start(saying(told) + f"; sys.stdout.flush(); {HANG}", longest=longest)
        end = time.monotonic() + PATIENCE
        while attempt.progress is None and time.monotonic() < end:
            attempt.proceed(0)
        assert attempt.deadline == expected
        attempt.close()


def test_told_to_end_it_may_clean_up_and_is_killed_if_it_does_not() -> None:
    for script, code in (
        ("import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(0))\n", "worker.stopped"),
        ("import signal, time\nsignal.signal(15, signal.SIG_IGN)\n", "worker.stopped"),
    ):
        ready = saying({"progress": {"doing": "x", "allow": 60}})
        attempt = start(script + ready + "; sys.stdout.flush(); time.sleep(3600)")
        end = time.monotonic() + PATIENCE
        while attempt.progress is None and time.monotonic() < end:
            attempt.proceed(0)
        attempt.ask_to_end(10.0)
        assert attempt.deadline == 10.0 + END_SECONDS
        assert broken(outcome(attempt, now=10.0 + (END_SECONDS if "SIG_IGN" in script else 0))) == code


def test_a_worker_that_even_sigkill_does_not_end_is_noticed() -> None:
    attempt = start(HANG)
    attempt.kill(5.0)
    assert not attempt.stuck(5.0 + REAP_SECONDS)
    assert attempt.stuck(5.1 + REAP_SECONDS)
    assert broken(outcome(attempt, now=6.0)) == "worker.crashed"


def test_it_inherits_nothing_but_what_it_should() -> None:
    secret = os.open("/proc/self/status", os.O_RDONLY)  # not inheritable, as everything that Python opens
    script = (
        "import json, os\n"
        "told = {'state': 'x', 'wait_seconds': 1, 'agent': {}}\n"
        "opened = [os.readlink(f'/proc/self/fd/{d}') for d in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{d}')]\n"
        "told['note'] = repr((any('status' in o for o in opened), os.getsid(0) == os.getpid(),"
        " os.readlink('/proc/self/fd/0')))\n"
        "print(json.dumps(told))"
    )
    try:
        result = outcome(start(script))
    finally:
        os.close(secret)
    assert isinstance(result, Report)
    assert result.note == "(False, True, '/dev/null')"


def test_a_worker_that_cannot_be_started_is_an_error_and_leaves_nothing_open() -> None:
    before = opened()
    with pytest.raises(FileNotFoundError):
        Attempt(["/nonexistent/worker"], {}, 0.0, 1.0)
    assert opened() == before


def test_nothing_stays_open_or_unreaped() -> None:
    before = opened()
    attempt = start(saying(REPORT))
    outcome(attempt)
    stopped = start(HANG)
    stopped.close()
    assert opened() == before
    for pid in (attempt.pid, stopped.pid):
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
