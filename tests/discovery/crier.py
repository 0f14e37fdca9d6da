"""Tells a link where a registrar is, as a program of its own, which ends when the registrar moves away.

    python -m discovery.crier mdns|grasp ADDRESS PORT

Prints "ready" once it announces.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from typing import cast

from holdfast_sim.announce import Announcement, Way, announced


async def main(way: str, address: str, port: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # A flood a second: the device listens for a few.
    what = Announcement(int(port), (address,), "eth0", "registrar", (cast("Way", way),), every=1.0)
    async with announced(what, secrets.token_bytes):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
