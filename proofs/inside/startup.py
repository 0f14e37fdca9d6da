"""Seconds from exec to READY=1, and for a full import of the worker: medians of runs that take turns."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 9
WORKER = "import holdfast.cli.step, holdfast.keys.tpm"


def ready(manager: socket.socket, environ: dict[str, str]) -> float:
    """One start of the resident process."""
    began = time.monotonic()
    process = subprocess.Popen(
        ["/usr/bin/holdfastd", "-c", "/nonexistent"], env=environ, stderr=subprocess.DEVNULL
    )
    while b"READY=1" not in manager.recv(4096):
        pass
    took = time.monotonic() - began
    process.send_signal(signal.SIGTERM)
    process.wait()
    manager.settimeout(0)
    try:
        while manager.recv(4096):
            pass
    except BlockingIOError:
        manager.settimeout(None)
    return took


def imported() -> float:
    """One start of an interpreter that imports what a worker does."""
    began = time.monotonic()
    subprocess.run(["/opt/holdfast/bin/python", "-P", "-c", WORKER], check=True)
    return time.monotonic() - began


def main() -> int:
    """Print both medians."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(f"{directory}/notify")
        environ = {**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"}
        ready(manager, environ)
        imported()  # byte code and disk cache are warm for both
        pairs = [(ready(manager, environ), imported()) for _ in range(RUNS)]
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    print(json.dumps({"ready_ms": round(medians[0] * 1000), "worker_import_ms": round(medians[1] * 1000)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
