"""Pledges in a hurry: ``callers.py HOST PORT N`` opens N TLS connections at one time and keeps them.

Prints how many were served and how many were reset, as a JSON object.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from contextlib import ExitStack


def main(host: str, port: str, number: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it counts connections, and believes nobody
    told = {"served": 0, "reset": 0}
    with ExitStack() as kept:
        for _ in range(int(number)):
            try:
                plain = kept.enter_context(socket.create_connection((host, int(port)), timeout=20))
                kept.enter_context(context.wrap_socket(plain))
                told["served"] += 1
            except ConnectionError:
                told["reset"] += 1
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
