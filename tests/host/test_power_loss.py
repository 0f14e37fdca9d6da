"""Power loss for real: every system call of one commit and of one deployment fails once, or is the last one.

On a small file system of its own, with strace as the one who spoils (FIELD-LESSONS 7). Whatever happens, the
record loads and is one of the two, ``current`` is whole and is one of the two, and doing it again works.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.host.credentials import CredentialFiles
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life.record import Credential, CredentialState, DeviceRecord, Identity, encode
from holdfast.wire.errors import StateError
from host.fault_driver import DONE, OPERATIONS, REFUSED
from tools import need

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

HOWS = ("signal=SIGKILL", "error=EIO", "error=ENOSPC")
FULL = os.environ.get("FULL") == "1"
WHEN = 200
"""More calls of one name than any operation makes."""

# Calls that change nothing that outlives the process: memory, signals, the process itself.
ELSEWHERE = re.compile(
    r"(brk|m(map|unmap|remap|protect|advise)|rt_sig\w+|futex|getrandom|get(pid|tid|uid|euid|gid|egid)|exit_group"
    r"|set_robust_list|rseq|prlimit64|sched_\w+|clock_\w+|gettid|umask|sigaltstack)"
)
# What must not fail unsaid.
DURABLE = re.compile(r"write|fsync|rename(at2?)?|link(at)?|symlink(at)?|fchmod|fchown")
CA = pki.ca("Owner Root")
OTHER = pki.ca("Owner Root 2")
LEAF = pki.end_entity("gateway", CA, eku=[pki.CLIENT_AUTH]).certificate
RENEWED = pki.end_entity("gateway", OTHER, eku=[pki.CLIENT_AUTH]).certificate
T0 = LEAF.not_valid_before_utc
DERS = tuple(c.public_bytes(Encoding.DER) for c in (LEAF, RENEWED))
PEMS = tuple(c.public_bytes(Encoding.PEM) for c in (LEAF, RENEWED, CA.certificate, OTHER.certificate))
OLDER, OLD, NEW = (
    DeviceRecord(
        T0 + timedelta(days=n),
        identities=(
            Identity("ldevid", Credential(CredentialState.ACTIVE, KeyRef(f"k:{n}"), DERS[n % 2 :], n)),
        ),
    )
    for n in (1, 2, 3)
)
GENERATIONS: dict[int, dict[str, bytes]] = {
    n: {"chain.pem": PEMS[leaf], "anchors.pem": PEMS[anchor], "key.pem": f"reference {n}".encode()}
    for n, leaf, anchor in ((1, 0, 2), (2, 1, 3), (3, 0, 3))
}
ROLLED_OVER = {**GENERATIONS[2], "anchors.pem": PEMS[2] + PEMS[3]}
AREAS = {"commit": "state", "deploy": "credentials", "redeploy": "credentials"}


# --- the place ---------------------------------------------------------------------------------------


@contextmanager
def mounted(at: Path, kib: int) -> Iterator[Path]:
    """A file system of *kib* KiB; where nobody may mount one, a directory."""
    at.mkdir()
    if os.geteuid() != 0:
        yield at
        return
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "holdfast-test", at], capture_output=True, check=False
    )
    if done.returncode != 0:
        yield at
        return
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", 512) as small:
        yield small


def prepare(root: Path) -> None:
    """Two generations of everything, as on a device that has renewed once."""
    for name in ("state", "identities"):
        shutil.rmtree(root / name, ignore_errors=True)
    for record in (OLDER, OLD):
        StateStore(root / "state").commit(record)
    for generation in (1, 2):
        place_generation(root, generation)


def order(root: Path, operation: str) -> dict[str, Any]:
    files = ROLLED_OVER if operation == "redeploy" else GENERATIONS[3]
    return {
        "root": str(root),
        "operation": operation,
        "record": encode(NEW).decode(),
        "generation": 2 if operation == "redeploy" else 3,
        "chain": files["chain.pem"].decode(),
        "anchors": files["anchors.pem"].decode(),
        "key": files["key.pem"].decode(),
        "idle": 0,
        "number": 0,
    }


def place_generation(root: Path, generation: int) -> None:
    OPERATIONS["deploy"](root, order(root, "deploy") | texts(generation))


def texts(generation: int) -> dict[str, Any]:
    files = GENERATIONS[generation]
    found = {name.removesuffix(".pem"): data.decode() for name, data in files.items()}
    return {"generation": generation, **found}


# --- what must hold ----------------------------------------------------------------------------------


def check_record(root: Path, status: int) -> None:
    loaded = StateStore(root / "state").load()
    assert loaded.record in ({NEW} if status == DONE else {OLD, NEW})
    assert loaded.note == ""
    OPERATIONS["commit"](root, order(root, "commit"))
    again = StateStore(root / "state").load()
    assert (again.record, again.note) == (NEW, "")
    assert {p.name for p in (root / "state").iterdir()} == {"record", "record.previous"}


def check_files(root: Path, status: int) -> None:
    home = root / "identities" / "ldevid"
    seen = content(home / "current")
    assert seen in ([GENERATIONS[3]] if status == DONE else [GENERATIONS[2], GENERATIONS[3]])
    place_generation(root, 3)
    assert content(home / "current") == GENERATIONS[3]
    assert content(home / "previous") == GENERATIONS[2]
    assert {p.name for p in home.iterdir()} == {"current", "previous", "generation-2", "generation-3"}


def check_rolled_over(root: Path, status: int) -> None:
    home = root / "identities" / "ldevid"
    seen = content(home / "current")
    assert seen in ([ROLLED_OVER] if status == DONE else [GENERATIONS[2], ROLLED_OVER])
    OPERATIONS["redeploy"](root, order(root, "redeploy"))
    assert content(home / "current") == ROLLED_OVER
    assert content(home / "previous") == GENERATIONS[2]
    assert {p.name for p in home.iterdir()} == {"current", "previous", "generation-2", "generation-2.old"}


def content(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


CHECKS: dict[str, Callable[[Path, int], None]] = {
    "commit": check_record,
    "deploy": check_files,
    "redeploy": check_rolled_over,
}


# --- who spoils --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    process: subprocess.Popen[bytes]
    connection: socket.socket
    numbers: dict[str, int]

    def run(self, wanted: dict[str, Any]) -> int:
        """One child; its exit status, or minus the signal that ended it."""
        self.connection.send(json.dumps(wanted | {"mark": self.numbers["getppid"]}).encode())
        return int(self.connection.recv(64))


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """System calls by name, as this machine's C library counts them."""
    compiler = need("gcc", "gcc")
    done = subprocess.run(
        [compiler, "-E", "-dM", "-include", "sys/syscall.h", "-"],
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    return {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+) (\d+)", done.stdout)}


@pytest.fixture
def driver(numbers: dict[str, int]) -> Iterator[Driver]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "host.fault_driver", str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parent.parent) as process,
    ):
        theirs.close()
        assert ours.recv(64) == b"ready"
        try:
            yield Driver(process, ours, numbers)
        finally:
            ours.close()
            process.wait(timeout=60)


@contextmanager
def strace(driver: Driver, log: Path, *options: str) -> Iterator[None]:
    """strace over the driver's children from now on, with its words in *log*."""
    command = [need("strace", "strace"), "-f", "-o", str(log), *options, "-p", str(driver.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        attached = process.stderr.readline()
        if "attached" not in attached:
            process.wait(timeout=60)
            pytest.fail(f"strace: {attached}")
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


@dataclass(frozen=True)
class Point:
    """The call number *nth* of *name* within the operation, after *before* of that name in the child."""

    name: str
    nth: int
    before: int


def points(driver: Driver, root: Path, operation: str, log: Path) -> list[Point]:
    """Every system call of a fault-free *operation*, in order."""
    prepare(root)
    with strace(driver, log):
        assert driver.run(order(root, operation)) == DONE
    text = log.read_text()
    parent = str(driver.process.pid)
    calls = [m[1] for m in re.finditer(rf"^(?!{parent} )\d+ +(\w+)\(", text, re.MULTILINE)]
    first, last = (i for i, name in enumerate(calls) if name == "getppid")
    before = Counter(calls[:first])
    within: Counter[str] = Counter()
    found = []
    for name in calls[first + 1 : last]:
        within[name] += 1
        if not ELSEWHERE.fullmatch(name):
            found.append(Point(name, within[name], before[name]))
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_system_call_may_be_the_last_or_fail(
    tmp_path: Path,
    place: Path,
    driver: Driver,
    operation: str,
    record_property: Callable[[str, object], None],
) -> None:
    found = points(driver, place, operation, tmp_path / "trace")
    assert {p.name for p in found} >= {"openat", "write", "fsync", "close"}
    assert sum(p.name == "fsync" for p in found) >= 2
    assert sum(p.name in {"rename", "renameat", "renameat2"} for p in found) >= 1
    names = sorted({p.name for p in found})
    spoiled = 0
    for how in HOWS if FULL or operation != "redeploy" else HOWS[:1]:
        log = tmp_path / f"log-{how}"
        trace = ["-e", f"trace={','.join(names)}", "-e", f"inject={','.join(names)}:{how}:when={WHEN}"]
        statuses: Counter[int] = Counter()
        with strace(driver, log, *trace):
            for point in found:
                prepare(place)
                idle = WHEN - point.before - point.nth
                assert idle > 0
                number = driver.numbers[point.name]
                status = driver.run(order(place, operation) | {"idle": idle, "number": number})
                statuses[status] += 1
                wanted = {DONE, REFUSED} - ({DONE} if DURABLE.fullmatch(point.name) else set())
                if how == "signal=SIGKILL":
                    wanted = {-signal.SIGKILL}
                assert status in wanted, (how, point)
                try:
                    CHECKS[operation](place, status)
                except (AssertionError, OSError, StateError) as error:
                    raise AssertionError(f"{how} at {point}: {error}") from error
        if how != "signal=SIGKILL":
            assert log.read_text().count("(INJECTED)") == len(found), how
            assert statuses[REFUSED] > len(found) // 2
        spoiled += len(found)
    record_property("fault_points", spoiled)
    record_property("system_calls", len(found))


def test_the_fault_is_in_the_operation(tmp_path: Path, place: Path, driver: Driver) -> None:
    """The instrument itself: a spoiled fsync of the record's bytes is said, and the old record stays."""
    found = points(driver, place, "commit", tmp_path / "trace")
    point = next(p for p in found if p.name == "fsync")
    prepare(place)
    inject = ["-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={WHEN}"]
    with strace(driver, tmp_path / "log", *inject):
        idle = WHEN - point.before - point.nth
        wanted = order(place, "commit") | {"idle": idle, "number": driver.numbers["fsync"]}
        assert driver.run(wanted) == REFUSED
        assert driver.run(order(place, "commit")) == DONE


# --- a disk that is full or read-only ----------------------------------------------------------------


def refused(root: Path, operation: str) -> str:
    """The code with which *operation* is refused, or ""."""
    try:
        OPERATIONS[operation](root, order(root, operation))
    except StateError as error:
        return error.code
    return ""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_amount_of_room_that_is_left_is_enough_or_named(tmp_path: Path, operation: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    with mounted(tmp_path / "small", 192) as small:
        area = AREAS[operation]
        told = []
        for pages in range(12):
            prepare(small)
            filler = small / "filler"
            with filler.open("wb", buffering=0) as file:
                fill(file.fileno())
                file.truncate(max(file.tell() - pages * 4096, 0))
            told.append(refused(small, operation))
            assert told[-1] in {"", f"{area}.full"}
            if told[-1]:
                check_old(small, operation)
            filler.unlink()
            CHECKS[operation](small, DONE if not told[-1] else REFUSED)
        assert told[0] == f"{area}.full"
        assert told[-1] == ""


def fill(descriptor: int) -> None:
    """Write until no page is left."""
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        return


def check_old(root: Path, operation: str) -> None:
    if operation == "commit":
        assert StateStore(root / "state").load().record == OLD
    else:
        current = root / "identities" / "ldevid" / "current"
        assert content(current) == GENERATIONS[2]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_read_only_file_system_is_named_and_loses_nothing(tmp_path: Path, operation: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    with mounted(tmp_path / "small", 512) as small:
        prepare(small)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        area = AREAS[operation]
        assert refused(small, operation) == f"{area}.read-only"
        check_old(small, operation)
        assert CredentialFiles(small / "identities", "ldevid").current() == 2
        subprocess.run(["mount", "-o", "remount,rw", small], check=True)
        CHECKS[operation](small, REFUSED)


def test_the_records_of_this_file_differ() -> None:
    assert len({encode(r) for r in (OLDER, OLD, NEW)}) == 3
    assert replace(OLD, floor=NEW.floor) != NEW
