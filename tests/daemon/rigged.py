"""``holdfastd`` with other workers: the file that is its configuration is the script that they run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from holdfast import daemon
from holdfast.resident.agent import Starter, Want
from holdfast.resident.attempt import Attempt


def starter(config: str, environ: Mapping[str, str]) -> Starter:
    """Workers that run the script as it stands when they start."""

    def start(want: Want, now: float, longest: float) -> Attempt:
        names = [*sorted(want.renew), *(["hasten"] if want.hasten else [])]
        return Attempt([sys.executable, "-I", "-c", Path(config).read_text(), *names], environ, now, longest)

    return start


if __name__ == "__main__":
    daemon.starter = starter
    sys.exit(daemon.main())
