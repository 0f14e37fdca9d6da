"""``holdfastd`` as a real process, under a service manager that the test plays."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import rigged
from daemon.workers import REPORT, SETTINGS, saying
from holdfast.control_client import ControlClient, ControlError

PATIENCE = 60.0
HANG = "\nimport time; sys.stdout.flush(); time.sleep(3600)"
ENROLLING = {"progress": {"doing": "Enroll", "identity": "ldevid", "allow": 600}}


class House:
    """The process, and what it told its manager."""

    def __init__(self, directory: Path) -> None:
        self.script = directory / "worker.py"
        self.control = directory / "control"
        self.log = directory / "log"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.settimeout(PATIENCE)
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self, script: str, *, watchdog: float = 0.2) -> None:
        self.script.write_text(script)
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": self.manager.getsockname(),
            "WATCHDOG_USEC": str(int(watchdog * 1e6)),
        }
        command = [sys.executable, rigged.__file__, "-c", str(self.script), "--socket", str(self.control)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stderr=log)

    def told(self, wanted: str) -> dict[str, str]:
        """The next message of the process that has *wanted*; others are passed over."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = dict(a.partition("=")[::2] for a in self.manager.recv(1 << 16).decode().split("\n"))
            if wanted in message:
                return message
        pytest.fail(f"no {wanted}")

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            self.manager.recv(1 << 16)  # the watchdog comes again and again: no need to sleep

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def status(self) -> dict[str, Any]:
        with ControlClient(self.control) as client:
            return client.get_status()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    if house.process is not None:
        house.process.kill()
        house.process.wait()
    house.manager.close()


def test_it_is_ready_before_the_first_step_has_ended_and_stops_with_its_worker(house: House) -> None:
    house.begin(saying(SETTINGS, ENROLLING) + HANG)
    assert house.told("READY") == {"READY": "1", "STATUS": "starting"}
    house.until(lambda: "Enroll ldevid" in house.told("STATUS")["STATUS"])
    status = house.status()
    assert status["working"] == {"doing": "Enroll", "identity": "ldevid", "allow_seconds": 600.0}
    assert house.end() == 0
    stopping = house.told("STOPPING")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 0
    assert not house.control.exists()
    assert "stopped" in house.log.read_text()


def test_the_watchdog_is_fed_while_a_worker_hangs(house: House) -> None:
    house.begin(saying(SETTINGS, ENROLLING) + HANG)
    house.told("READY")
    for _ in range(5):
        assert house.told("WATCHDOG") == {"WATCHDOG": "1"}


def test_a_worker_that_ignores_everything_does_not_hold_up_the_end(house: House) -> None:
    ignoring = "import signal, sys; signal.signal(15, signal.SIG_IGN)\n" + saying(ENROLLING) + HANG
    house.begin(ignoring, watchdog=3600)  # nothing else wakes it
    house.until(lambda: "Enroll" in house.told("STATUS")["STATUS"])
    assert house.end() == 0


def test_the_status_in_words_tells_state_trouble_and_when(house: House) -> None:
    trouble = {"code": "est.x", "detail": "no", "clause": "", "retry": "backoff", "at": ""}
    house.begin(saying(SETTINGS, {**REPORT, "trouble": trouble}))
    house.until(lambda: "est.x" in (status := house.told("STATUS")["STATUS"]) and REPORT["state"] in status)
    status = house.status()
    assert status["state"] == REPORT["state"]
    assert status["trouble"]["code"] == "est.x"
    assert status["identities"][0]["not_after"] == 1830000000
    assert house.end() == 0


def test_a_reload_is_told_in_the_order_that_the_manager_needs(house: House) -> None:
    house.begin(saying(SETTINGS, REPORT))
    house.told("READY")
    house.until(lambda: house.status()["version"] == "1.2.3")
    house.script.write_text(saying({"settings": {**SETTINGS["settings"], "version": "4.5.6"}}, REPORT))
    house.signal(signal.SIGHUP)
    reloading = house.told("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert house.told("READY")["READY"] == "1"
    assert house.status()["version"] == "4.5.6"
    assert house.end() == 0


def test_a_reload_that_is_refused_keeps_what_was_and_says_so(house: House) -> None:
    house.begin(saying(SETTINGS, REPORT))
    house.told("READY")
    house.until(lambda: house.status()["version"] == "1.2.3")
    error = {"code": "config.invalid", "detail": "line 3: what?", "clause": "", "retry": "operator"}
    house.script.write_text(saying({"ok": False, "error": error}))
    house.signal(signal.SIGHUP)
    house.told("RELOADING")
    house.told("READY")
    status = house.status()
    assert (status["version"], status["trouble"]["code"]) == ("1.2.3", "config.invalid")
    assert house.end() == 0
    assert "line 3: what?" in house.log.read_text()


def test_a_reload_waits_for_a_worker_that_started_after_it(house: House) -> None:
    go = house.script.with_name("go")
    os.mkfifo(go)
    house.begin(f"{saying(SETTINGS)}; sys.stdout.flush(); open({str(go)!r}).read()\n" + saying(REPORT))
    house.told("READY")
    house.until(lambda: house.status()["version"] == "1.2.3")
    house.script.write_text(saying({"settings": {**SETTINGS["settings"], "version": "4.5.6"}}, REPORT))
    house.signal(signal.SIGHUP)
    house.told("RELOADING")
    with go.open("w"):
        patience = int(house.told("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"])
    assert patience > 2_000_000, "more than until it says so again"
    house.told("READY")
    assert house.status()["version"] == "4.5.6"


def test_renewal_over_the_socket(house: House) -> None:
    script = f"import sys\nif 'ldevid' in sys.argv: REPORT = 2\n{saying(SETTINGS, ENROLLING, REPORT)}"
    house.begin(script)
    house.told("READY")
    house.until(lambda: house.status()["state"] == REPORT["state"])
    with ControlClient(house.control) as client:
        assert [p["doing"] for p in client.renew("ldevid")] == ["Enroll"]
        assert client.step is not None
        for error, call in (
            ("control.no-such-identity", lambda: list(client.renew("vpn"))),
            ("control.no-certificate", lambda: client.get_certificate("ldevid")),
        ):
            with pytest.raises(ControlError) as raised:
                call()
            assert raised.value.code == error
        house.script.write_text("raise SystemExit(3)")
        with pytest.raises(ControlError, match=r"worker\.crashed"):
            list(client.step())
        house.script.write_text(saying(SETTINGS, REPORT))
        assert client.reload()["state"] == REPORT["state"]
    assert house.end() == 0


def test_watching_over_the_socket(house: House) -> None:
    house.begin(saying(SETTINGS, REPORT))
    house.told("READY")
    house.until(lambda: house.status()["state"] == REPORT["state"])
    with ControlClient(house.control) as watcher, ControlClient(house.control) as client:
        states = watcher.watch()
        assert next(states)["state"] == REPORT["state"]
        house.script.write_text(saying(SETTINGS, {**REPORT, "state": "something new"}))
        list(client.step())
        while next(states)["state"] != "something new":
            pass
        house.end()
        with pytest.raises(ControlError, match=r"control\.unreachable"):
            for _ in states:
                pass


def test_two_cannot_listen_at_one_place(house: House) -> None:
    house.begin(saying(SETTINGS, REPORT))
    house.told("READY")
    second = [sys.executable, rigged.__file__, "-c", str(house.script), "--socket", str(house.control)]
    done = subprocess.run(second, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    house.signal(signal.SIGKILL)
    assert house.process is not None
    house.process.wait()
    assert house.control.exists()
    house.begin(saying(SETTINGS, REPORT))  # a socket that a killed one left is taken over
    house.told("READY")
    assert house.end() == 0


@pytest.mark.parametrize("arguments", [["--what"], ["-c"], ["--socket"], ["x"]])
def test_arguments_that_it_does_not_know(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "holdfast.daemon", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: holdfastd")


HEAVY = (
    r"cryptography|asn1crypto|msgspec|yaml|jsonschema|tpm2_pytss|h11|pkcs11|asyncio|ssl|http|logging|argparse|"
    r"dataclasses|inspect|pathlib|subprocess|threading|holdfast\.(wire|keys|life|worker|cli)"
)


def test_it_loads_nothing_heavy_and_nothing_foreign() -> None:
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import holdfast.daemon\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    # -S: what the site's own files load (an editable install does) is not ours.
    source = Path(rigged.daemon.__file__).parent.parent
    environ = {"PYTHONPATH": str(source), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, env=environ, check=True)
    loaded = json.loads(done.stdout)
    assert "holdfast.resident.agent" in loaded
    assert [m for m in loaded if re.fullmatch(rf"({HEAVY})(\..*)?", m)] == []
    foreign = {m.partition(".")[0] for m in loaded} - set(sys.stdlib_module_names) - {"holdfast"}
    assert foreign == set()
