"""``make proof-machine``: a gateway with a kernel of its own boots, in QEMU; and what product teams install.

What the virtual gateway goes through stands in ``tests/machine``. ``FULL=1`` adds the package on Debian 13.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from proofs.packages import life
from proofs.runner import Part, prove, pytests, suite

RELEASES: Final = ("bookworm", "trixie") if os.environ.get("FULL") == "1" else ("bookworm",)
BOOT: Final = "boot_ms: "


def gateway() -> Mapping[str, Any]:
    """The virtual gateway, one emulator a core; prints the timeline of its first boot."""
    figures = suite("tests/machine", "-m", "machine", workers=True, apart=True)
    for name, value in figures.items():
        if name.startswith(BOOT):
            print(f"    {name.removeprefix(BOOT):<24} {value / 1000:7.2f} s")
    return figures


def main() -> int:
    parts: list[tuple[str, Part]] = [
        ("the virtual gateway", gateway),
        *((f"the Debian package on {release}", partial(life, release)) for release in RELEASES),
        ("the Yocto layer", pytests("tests/layer", "-m", "machine or not machine")),
    ]
    return prove("machine", parts)


if __name__ == "__main__":
    sys.exit(main())
