"""``make proof-machine``: a gateway with a kernel of its own boots, in QEMU; and what product teams install.

What the virtual gateway goes through stands in ``tests/machine``. ``FULL=1`` runs every scenario.
"""

from __future__ import annotations

import sys

from proofs.runner import prove, pytests


def main() -> int:
    parts = [
        ("the virtual gateway", pytests("tests/machine", "-m", "machine")),
        ("the Yocto layer", pytests("tests/layer", "-m", "machine or not machine")),
    ]
    return prove("machine", parts)


if __name__ == "__main__":
    sys.exit(main())
