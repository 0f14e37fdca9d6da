"""``make proof-daemon``: the resident agent under a real systemd, in a throw-away machine.

The servers and the software TPM run out here, on the loopback that the machine shares with us.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from demo.stage import Stage
from proofs.machine import Machine, fit, pss, until
from proofs.runner import ROOT, FailedError, prove, pytests

FULL: Final = os.environ.get("FULL") == "1"
LOAD_SECONDS: Final = 60 if FULL else 20
IDLE_SECONDS: Final = 62 if FULL else 35
IDLE_MIB: Final = 12.0
LOADED_MIB: Final = 16.0
EXPOSURE: Final = 1.5
STARTUP_RATIO: Final = 0.3
STOP_SECONDS: Final = 2.0
REQUESTS_A_SECOND: Final = 1000

UNIT: Final = "holdfast.service"
CONTROL: Final = "/run/holdfast/control"
UNITS: Final = (
    "holdfast.service", "holdfast.socket", "holdfast-step.service", "holdfast-step.timer",
    "holdfast-identity@ldevid.path", "holdfast-identity@ldevid.target",
)  # fmt: skip

CONFIG: Final = """\
keys: {{tcti: "{tcti}"}}
idevid: {{chain-file: idevid-chain.pem}}
manufacturer:
  anchors: manufacturer-anchors.pem
registrars: ["{registrar}"]
clock: trusted
agent:
  metrics: {{file: /run/holdfast/holdfast.prom}}
identities:
  - name: ldevid
    protocols: [{{est: {{username: gateway, password-credential: est-password}}}}]
"""
CONSUMER: Final = """\
[Unit]
Description=A program that needs the identity
After=holdfast-identity@ldevid.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /var/lib/holdfast/identities/ldevid/current/chain.pem > /run/consumer'
"""
DROP_IN: Final = "/run/systemd/system/holdfast.service.d/{}.conf"
FAULTY: Final = """\
[Service]
ExecStart=
ExecStart=/opt/holdfast/bin/python -P /proof/hanging.py
WatchdogSec=4
RestartSec=100ms
"""


class House:
    """The device in its machine, and its owner's servers out here."""

    def __init__(self, stage: Stage, machine: Machine) -> None:
        self.stage = stage
        self.machine = machine

    def configure(self, registrar: str) -> None:
        """Write the configuration."""
        text = CONFIG.format(tcti=self.stage.tpm.tcti, registrar=registrar)
        self.machine.write("/etc/holdfast/holdfast.yaml", text)

    def status(self) -> dict[str, Any]:
        """What the agent says, by a client that we did not write."""
        done = self.machine.run("varlinkctl", "call", CONTROL, "io.holdfast.Agent.GetStatus", "{}")
        try:
            status: dict[str, Any] = json.loads(done.stdout)["status"]
        except (ValueError, KeyError):
            return {}
        return status

    def identity(self) -> str:
        """State of the identity."""
        return next((i["state"] for i in self.status().get("identities", ())), "")

    def drop_in(self, name: str, text: str) -> None:
        """A change of the unit, in force after the restart that comes with it."""
        self.machine.write(DROP_IN.format(name), text)
        self.machine.run("systemctl", "daemon-reload", check=True)
        self.machine.run("systemctl", "restart", UNIT, check=True)

    def take_away(self, name: str) -> None:
        """Undo :meth:`drop_in`."""
        self.machine.run("rm", DROP_IN.format(name), check=True)
        self.machine.run("systemctl", "daemon-reload", check=True)
        self.machine.run("systemctl", "restart", UNIT, check=True)

    def idle(self) -> None:
        """Wait until nothing is under way."""
        until("it is at rest", lambda: (s := self.status()) and "working" not in s and s["identities"])
        until("its worker is gone", lambda: len(self.processes()) == 1)

    def processes(self) -> list[str]:
        """Processes of the service."""
        group = self.machine.show(UNIT, "ControlGroup")
        return self.machine.ask("cat", f"/sys/fs/cgroup{group}/cgroup.procs").split()

    # --- the parts -----------------------------------------------------------------------------------

    def units(self) -> dict[str, Any]:
        """The units are clean, and closed as far as they can be."""
        paths = [f"/usr/lib/systemd/system/{unit}" for unit in UNITS]
        done = self.machine.run("systemd-analyze", "verify", "--man=no", *paths)
        if done.returncode != 0 or done.stdout + done.stderr:
            raise FailedError(f"systemd-analyze verify: {done.stdout}{done.stderr}")
        scores = {}
        for unit in ("holdfast.service", "holdfast-step.service"):
            path = f"/usr/lib/systemd/system/{unit}"
            limit = f"--threshold={int(EXPOSURE * 10)}"
            done = self.machine.run(
                "systemd-analyze", "security", "--offline=true", limit, "--no-pager", path
            )
            print(f"    {done.stdout.strip().splitlines()[-1]}")
            scores[unit] = float(done.stdout.split("Overall exposure level")[1].split(":")[1].split()[0])
            if done.returncode != 0 or scores[unit] > EXPOSURE:
                raise FailedError(f"{unit}: exposure {scores[unit]}")
        return {"verified": len(UNITS), "exposure": scores}

    def ready(self) -> dict[str, Any]:
        """READY although no registrar answers; trouble in words; nobody starts who waits for the identity."""
        machine = self.machine
        until("the unit is active", lambda: machine.show(UNIT, "ActiveState") == "active")
        code = until("the first step has failed", lambda: self.status().get("trouble", {}).get("code"))
        if not code.startswith("transport."):
            raise FailedError(f"another trouble than that nobody answers: {self.status()}")
        words = until("the status says so", lambda: code in (s := machine.show(UNIT, "StatusText")) and s)
        if machine.show("consumer.service", "ActiveState") != "inactive":
            raise FailedError("the consumer did not wait")
        return {"status": words, "credentials": self._credentials()}

    def _credentials(self) -> str:
        """The secret is where the agent sees it, and not where others do."""
        place = f"/run/credentials/{UNIT}/est-password"
        secret = self.machine.ask("cat", place)
        if secret != "let-me-in":
            raise FailedError(f"the credential did not arrive: {secret!r}")
        if self.machine.run("runuser", "-u", "nobody", "--", "cat", place).returncode == 0:
            raise FailedError("anybody may read the credential")
        return "arrived"

    def reload(self) -> dict[str, Any]:
        """A new configuration by reload; with it the identity; with that, whoever waits for it."""
        machine = self.machine
        pid = machine.show(UNIT, "MainPID")
        self.configure(self.stage.servers.addresses["registrar"])
        machine.run("systemctl", "reload", UNIT, check=True)
        until("the identity is active", lambda: self.identity() == "active")
        until("the consumer runs", lambda: machine.show("consumer.service", "ActiveState") == "active")
        if machine.show(UNIT, "MainPID") != pid:
            raise FailedError("the agent was started anew")
        if "BEGIN CERTIFICATE" not in machine.read("/run/consumer"):
            raise FailedError("the consumer found no certificate")
        target = int(machine.show("holdfast-identity@ldevid.target", "ActiveEnterTimestampMonotonic"))
        started = int(machine.show("consumer.service", "ExecMainStartTimestampMonotonic"))
        if not 0 < target <= started:
            raise FailedError(f"consumer at {started}, target at {target}")
        return {"consumer_after_identity_ms": (started - target) // 1000, "log": self._log()}

    def _log(self) -> int:
        """Structured entries: how many name a transaction. The catalog explains each."""
        lines = self.machine.ask("journalctl", "-u", UNIT, "-o", "json").splitlines()
        entries = [entry for entry in map(json.loads, lines) if "HOLDFAST_TRANSACTION" in entry]
        if not any(e["HOLDFAST_EFFECT"] == "Enroll" and e["HOLDFAST_PROTOCOL"] == "est" for e in entries):
            raise FailedError("no entry tells of the enrollment")
        known = self.machine.ask("journalctl", "--list-catalog")
        if missing := {e["MESSAGE_ID"] for e in entries if e["MESSAGE_ID"] not in known}:
            raise FailedError(f"not in the catalog: {missing}")
        if "let-me-in" in "".join(lines):
            raise FailedError("a secret is in the log")
        return len(entries)

    def control(self) -> dict[str, Any]:
        """varlinkctl as an independent client: introspection, a renewal with progress, and who may what."""
        machine = self.machine
        shown = machine.run("varlinkctl", "introspect", CONTROL, "io.holdfast.Agent", check=True).stdout
        info = machine.run("varlinkctl", "info", CONTROL, check=True).stdout
        call = ("varlinkctl", "call", CONTROL)
        asked = machine.run(*call, "--more", "io.holdfast.Agent.Renew", '{"identity": "ldevid"}', check=True)
        if "progress" not in asked.stdout or '"generation":2' not in asked.stdout.replace(" ", ""):
            raise FailedError(f"no renewal: {asked.stdout}")
        status = ("io.holdfast.Agent.GetStatus", "{}")
        reader, stranger = ("runuser", "-u", "reader", "--"), ("runuser", "-u", "nobody", "--")
        machine.run(*reader, *call, *status, check=True)
        denied = machine.run(*reader, *call, "io.holdfast.Agent.Step", "{}")
        if denied.returncode == 0 or "PermissionDenied" not in denied.stderr:
            raise FailedError(f"a reader may act: {denied}")
        if machine.run(*stranger, *call, *status).returncode == 0:
            raise FailedError("anybody may read")
        if "Sign" in shown.replace("signs", ""):
            raise FailedError("something signs")
        product = next(line for line in info.splitlines() if "Product" in line).split(":")[1].strip()
        return {"product": product, "methods": shown.count("\nmethod ")}

    def footprint(self) -> dict[str, Any]:
        """What it costs at rest, with certmonger beside it."""
        machine = self.machine
        machine.run("systemctl", "restart", UNIT, check=True)
        machine.run("systemctl", "start", "certmonger.service", check=True)
        self.idle()
        ours, theirs = pss(machine.host_pid(UNIT)), pss(machine.host_pid("certmonger.service"))
        version = machine.ask("dpkg-query", "-W", "-f", "${Version}", "certmonger")
        machine.run("systemctl", "stop", "certmonger.service", check=True)
        if ours > IDLE_MIB:
            raise FailedError(f"{ours:.1f} MiB at rest")
        return {"pss_mib": round(ours, 1), "certmonger_pss_mib": round(theirs, 1), "certmonger": version}

    def at_rest(self) -> dict[str, Any]:
        """Every system call while idle: the watchdog's, and no other."""
        self.idle()
        trace = self.machine.directory / "strace"
        pid = self.machine.host_pid(UNIT)
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", str(trace), "-p", str(pid)])
        time.sleep(IDLE_SECONDS)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        calls = Counter(
            line.split(None, 1)[1].split("(")[0]
            for line in trace.read_text().splitlines()
            if "(" in line and "detached" not in line and "restart_syscall" not in line
        )
        fed = trace.read_text().count("WATCHDOG=1")
        others = {name: n for name, n in calls.items() if name not in {"epoll_wait", "sendto", "poll"}}
        wakeups = calls["epoll_wait"] - 1  # the last one was still waiting
        if others or wakeups > fed + 1 or calls["sendto"] != fed or not fed:
            raise FailedError(f"not at rest: {dict(calls)}, {fed} times the watchdog")
        return {"seconds": IDLE_SECONDS, "watchdog": fed, "wakeups": max(wakeups, fed), "writes": 0}

    def startup(self) -> dict[str, Any]:
        """From exec to READY, against a full import of the worker."""
        told: dict[str, Any] = json.loads(
            self.machine.run("/opt/holdfast/bin/python", "-P", "/proof/startup.py", check=True).stdout
        )
        told["ratio"] = round(told["ready_ms"] / told["worker_import_ms"], 2)
        if told["ratio"] > STARTUP_RATIO:
            raise FailedError(f"READY after {told['ratio']} of a worker's import: {told}")
        return told

    def crowd(self) -> dict[str, Any]:
        """A thousand requests a second, with everything that must not matter beside them."""
        self.drop_in("watched", "[Service]\nWatchdogSec=4\n")
        self.idle()
        restarts, pid = self.machine.show(UNIT, "NRestarts"), self.machine.host_pid(UNIT)
        path = f"/proc/{self.machine.leader}/root{CONTROL}"
        crowds = [
            subprocess.Popen(
                [sys.executable, "-m", "proofs.crowd", kind, path, str(LOAD_SECONDS)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for kind in ("askers", "pests")
        ]
        most = 0.0
        while any(c.poll() is None for c in crowds):
            most = max(most, pss(pid))
            time.sleep(0.2)
        asked, pests = (json.loads(c.communicate()[0]) for c in crowds)
        figures = {**asked, "pests": pests, "most_pss_mib": round(most, 1)}
        if self.machine.host_pid(UNIT) != pid or self.machine.show(UNIT, "NRestarts") != restarts:
            raise FailedError(f"the watchdog starved: {figures}")
        figures["requests_a_second"] = int(asked["answered"] / LOAD_SECONDS)
        if most > LOADED_MIB or figures["requests_a_second"] < REQUESTS_A_SECOND:
            raise FailedError(str(figures))
        self.take_away("watched")
        return figures

    def hung_worker(self) -> dict[str, Any]:
        """A TPM that answers no more: the worker is ended, the agent stays, and the next step works."""
        self.drop_in("faulty", FAULTY)
        self.idle()
        pid = self.machine.show(UNIT, "MainPID")
        began = time.monotonic()
        with self._frozen_tpm():
            self._renew_without_waiting()
            until(
                "the worker was ended", lambda: self.status().get("trouble", {}).get("code") == "worker.late"
            )
            took = time.monotonic() - began
            until("nothing of it is left", lambda: self.processes() == [pid])
        if self.machine.show(UNIT, "MainPID") != pid or self.machine.show(UNIT, "NRestarts") != "0":
            raise FailedError("the agent was started anew")
        self.machine.run("varlinkctl", "call", CONTROL, "io.holdfast.Agent.Step", "{}", check=True)
        until("it is well again", lambda: "trouble" not in self.status())
        return {"ended_after_s": round(took, 1), "allowed_s": 5, "agent_restarts": 0}

    def hung_agent(self) -> dict[str, Any]:
        """A loop that does not come round: systemd ends the agent and starts another."""
        self.idle()
        pid = self.machine.show(UNIT, "MainPID")
        began = time.monotonic()
        self.machine.run("kill", "-USR1", pid, check=True)
        until("another agent runs", lambda: self.machine.show(UNIT, "NRestarts") == "1")
        until("it is active", lambda: self.machine.show(UNIT, "ActiveState") == "active")
        took = time.monotonic() - began
        log = self.machine.ask("journalctl", "-u", UNIT, "-o", "cat")
        if "Watchdog timeout" not in log:
            raise FailedError("it was not the watchdog")
        until("it knows the identity", lambda: self.identity() == "active")
        return {"watchdog_s": 4, "running_again_after_s": round(took, 1)}

    def stop(self) -> dict[str, Any]:
        """A clean end: at rest, and with a worker that hangs in the hardware."""
        figures = {}
        self.take_away("faulty")
        self.idle()
        figures["idle_s"] = self._stopped()
        self.machine.run("systemctl", "start", UNIT, check=True)
        self.idle()
        with self._frozen_tpm():
            self._renew_without_waiting()
            until("a worker hangs in the TPM", self._worker_hangs)
            figures["worker_hangs_s"] = self._stopped()
        slow = {name: seconds for name, seconds in figures.items() if seconds > STOP_SECONDS}
        if slow:
            raise FailedError(f"stop took {slow}")
        self.machine.run("systemctl", "start", UNIT, check=True)
        until("the identity survived", lambda: self.identity() == "active")
        return figures

    def _stopped(self) -> float:
        began = time.monotonic()
        self.machine.run("systemctl", "stop", UNIT, check=True)
        took = time.monotonic() - began
        result = self.machine.show(UNIT, "Result"), self.machine.show(UNIT, "ExecMainStatus")
        if result != ("success", "0") or self.machine.show(UNIT, "ActiveState") != "inactive":
            raise FailedError(f"not a clean end: {result}")
        return round(took, 2)

    def timer(self) -> dict[str, Any]:
        """The variant without a resident process."""
        machine = self.machine
        machine.run("systemctl", "stop", "holdfast.socket", UNIT, check=True)
        machine.run("systemctl", "start", "holdfast-step.timer", check=True)
        machine.run("systemctl", "start", "holdfast-step.service", check=True)
        result = (
            machine.show("holdfast-step.service", "Result"),
            machine.show("holdfast-step.service", "ExecMainStatus"),
        )
        if result != ("success", "0"):
            raise FailedError(
                f"the step ended with {result}: {machine.ask('journalctl', '-u', 'holdfast-step')}"
            )
        machine.run("systemctl", "stop", "holdfast-step.timer", check=True)
        return {
            "status": 0,
            "next": "timer" if machine.show("holdfast-step.timer", "TimersMonotonic") else "",
        }

    def _frozen_tpm(self) -> ExitStack:
        """Until the end of the block the TPM takes commands and answers none."""
        pid = int((self.stage.directory / "tpm/swtpm.pid").read_text())
        stack = ExitStack()
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        return stack

    def _worker_hangs(self) -> bool:
        """Whether a worker that has worked for a while has stopped doing so, though nothing ended it."""
        main = self.machine.show(UNIT, "MainPID")
        workers = [pid for pid in self.processes() if pid != main]

        def spent() -> list[int]:
            stats = [self.machine.read(f"/proc/{pid}/stat").rpartition(")")[2].split() for pid in workers]
            return [int(stat[11]) for stat in stats if stat]

        before = spent()
        time.sleep(1)
        return bool(before) and spent() == before and before[0] > 20  # ticks: its imports are behind it

    def _renew_without_waiting(self) -> None:
        call = (
            "varlinkctl",
            "call",
            "--oneway",
            CONTROL,
            "io.holdfast.Agent.Renew",
            '{"identity": "ldevid"}',
        )
        self.machine.run(*call, check=True)


def main() -> int:
    """Run all parts in order; outside CI, a host that cannot run a machine skips with the reason."""
    subprocess.run([ROOT / "scripts/machine.sh"], check=os.environ.get("CI") == "true")
    if reason := fit():
        print(f"skipped: {reason}")
        print(json.dumps({"proof": "daemon", "ok": os.environ.get("CI") != "true", "skipped": reason}))
        return 1 if os.environ.get("CI") == "true" else 0
    with ExitStack() as stack:
        stage = stack.enter_context(Stage())
        machine = stack.enter_context(Machine())
        house = House(stage, machine)
        parts: list[tuple[str, Callable[[], Any]]] = [
            ("a real systemd starts", lambda: boot(house)),
            ("units: verify, exposure", house.units),
            ("READY early, words, credentials, nobody starts too soon", house.ready),
            ("reload brings a configuration, an identity, and who waits for it", house.reload),
            ("varlinkctl: introspection, renewal, who may what", house.control),
            ("memory at rest, beside certmonger", house.footprint),
            (f"system calls in {IDLE_SECONDS} s at rest", house.at_rest),
            ("start to READY against a worker's import", house.startup),
            (f"{REQUESTS_A_SECOND} requests a second for {LOAD_SECONDS} s, among pests", house.crowd),
            ("a hung worker is ended by the agent", house.hung_worker),
            ("a hung agent is ended by systemd", house.hung_agent),
            ("a clean stop", house.stop),
            ("a step on a timer", house.timer),
            (
                "workers, control, watchdog, log, metrics, one fault a test",
                pytests("tests/daemon", *HOST_TESTS),
            ),
            ("commands, completion, manual", pytests(*COMMAND_TESTS)),
        ]
        return prove("daemon", parts)


COMMAND_TESTS: Final = (
    "tests/cli/test_cli_quick.py",
    "tests/cli/test_cli_terminal.py",
    "tests/cli/test_cli_show.py",
    "tests/cli/test_completion.py",
    "tests/cli/test_manual.py",
    "tests/cli/test_renew.py",
    "tests/cli/test_asked.py",
)
HOST_TESTS: Final = (
    "tests/host/test_notify.py",
    "tests/host/test_journal.py",
    "tests/host/test_netwatch.py",
    "tests/host/test_clockwatch.py",
    "tests/host/test_activation.py",
)


def boot(house: House) -> dict[str, Any]:
    """With a configuration whose registrar is not there yet."""
    machine: Machine = house.machine
    house.configure("127.0.0.1:1")
    machine.write("/etc/holdfast/est-password", "let-me-in\n", 0o600)
    example: Path = ROOT / "systemd/examples/credentials.conf"
    for unit in (UNIT, "holdfast-step.service"):
        machine.write(f"/etc/systemd/system/{unit}.d/credentials.conf", example.read_text())
    machine.write("/etc/systemd/system/consumer.service", CONSUMER)
    machine.before("useradd", "--groups", "holdfast", "reader")
    machine.before("systemctl", "preset", "holdfast.service", "holdfast.socket", "holdfast-step.timer")
    machine.before("systemctl", "enable", "holdfast-identity@ldevid.path")
    machine.before("systemctl", "add-wants", "holdfast-identity@ldevid.target", "consumer.service")
    for name in ("idevid-chain.pem", "manufacturer-anchors.pem"):
        machine.write(f"/etc/holdfast/{name}", (house.stage.device / name).read_text())
    for script in (ROOT / "proofs/inside").glob("*.py"):
        machine.write(f"/proof/{script.name}", script.read_text())
    machine.boot()
    return {
        "systemd": machine.ask("systemctl", "--version").split("\n")[0],
        "pid_1": machine.read("/proc/1/comm").strip(),
        "python": machine.ask("/opt/holdfast/bin/python", "--version"),
    }


if __name__ == "__main__":
    sys.exit(main())
