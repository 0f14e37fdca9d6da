"""Runs on the unit, sent there by the station: TPM commands in, answers out, a line each.

Standard library only. A line is ``HF1 number crc base64``. Whatever else comes (a kernel's words on a serial
console) has no such form or no such sum, and is passed over by both ends. The same number again gets the same
answer again, without asking the TPM: so the station may repeat itself where a line was lost.
"""

import base64
import os
import socket
import sys
import zlib
from collections.abc import Callable

AGAIN = (0x908, 0x90A, 0x922)  # TPM_RC_YIELDED, _TESTING, _RETRY


def opened(place: str) -> Callable[[bytes], bytes]:
    """A function that asks the TPM at *place*: a device, or ``tcp:HOST:PORT`` of a software TPM."""
    if place.startswith("tcp:"):
        _, host, port = place.split(":")
        stream = socket.create_connection((host, int(port)))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device = stream.detach()
    else:
        device = os.open(place, os.O_RDWR)
    return lambda command: os.read(device, 4096) if os.write(device, command) else b""


def run(ask: Callable[[bytes], bytes], batch: bytes) -> bytes:
    """The answers to the commands in *batch*, up to the first that fails."""
    answers = b""
    while batch:
        size = int.from_bytes(batch[2:6], "big")
        for _ in range(8):
            answer = ask(batch[:size])
            code = int.from_bytes(answer[6:10], "big")
            if code not in AGAIN:
                break
        batch = batch[size:]
        answers += answer
        if code:
            break
    return answers


def main() -> None:
    """Until the line ends, or says so."""
    if os.isatty(0):
        import tty  # noqa: PLC0415 (a unit at the end of SSH may have none)

        tty.setraw(0)
    last, answer = b"", b""
    ask: Callable[[bytes], bytes] | None = None
    os.write(1, b"\r\nHF1 ready\r\n")
    for line in sys.stdin.buffer:
        words = line.split()
        if words[:2] == [b"HF1", b"bye"]:
            break
        if len(words) != 4 or words[0] != b"HF1" or b"%08x" % zlib.crc32(words[1] + words[3]) != words[2]:
            continue
        if words[1] != last:
            try:
                ask = ask or opened(sys.argv[1])
                text = base64.b64encode(run(ask, base64.b64decode(words[3])))
            except (OSError, ValueError) as error:
                ask, text = None, b"!" + base64.b64encode(str(error).encode()[:300])
            last = words[1]
            answer = b"HF1 %s %08x %s\r\n" % (last, zlib.crc32(last + text), text)
        sent = 0
        while sent < len(answer):
            sent += os.write(1, answer[sent:])


if __name__ == "__main__":
    main()
