"""holdfastd with two faults, for the proof: SIGUSR1 hangs its loop for ever, and a worker is given five
seconds for each thing instead of minutes."""

import signal
import sys
import time

from holdfast import daemon
from holdfast.resident import attempt


def hang(*_: object) -> None:
    """A loop that does not come round."""
    while True:
        time.sleep(3600)


signal.signal(signal.SIGUSR1, hang)
attempt.START_SECONDS = attempt.LONGEST_ALLOWANCE = 5.0  # type: ignore[misc]
sys.exit(daemon.main())
