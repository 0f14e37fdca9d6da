"""``make proof-machine``: a gateway with a kernel of its own boots, in QEMU; and what product teams install.

What the virtual gateway goes through stands in ``tests/machine``. ``FULL=1`` runs every scenario.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from proofs.packages import life
from proofs.runner import Part, prove, pytests

RELEASES = ("bookworm", "trixie") if os.environ.get("FULL") == "1" else ("bookworm",)


def main() -> int:
    parts: list[tuple[str, Part]] = [
        ("the virtual gateway", pytests("tests/machine", "-m", "machine")),
        *((f"the Debian package on {suite}", partial(life, suite)) for suite in RELEASES),
        ("the Yocto layer", pytests("tests/layer", "-m", "machine or not machine")),
    ]
    return prove("machine", parts)


if __name__ == "__main__":
    sys.exit(main())
