"""Shouts on a link: floods of announcements and of malformed packets, as a program for a host of its own.

    python -m discovery.shouter INTERFACE COUNT

COUNT announcements of as many places, by GRASP, and by multicast DNS to whoever asks; beside each goes a
mutilated one. Prints "ready" first and the number of packets that it sent last.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import struct
import sys
import time

import dns.flags
import dns.message
import dns.rrset

from holdfast.wire.discovery import dnssd, grasp


def main(interface: str, count: int) -> None:
    chance = random.Random(7)
    index = socket.if_nametoindex(interface)
    out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    ear = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ear.bind(("::", dnssd.PORT))
    group = socket.inet_pton(socket.AF_INET6, dnssd.GROUP_6) + struct.pack("@I", index)
    ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    ear.settimeout(0)
    answers = [_answer(number) for number in range(200)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sent, asker = 0, None
    for number in range(count):
        flood = _flood(number)
        for data in (flood, _mutilated(flood, chance)):
            out.sendto(data, (grasp.GROUP, grasp.PORT))
            sent += 1
        with contextlib.suppress(BlockingIOError):
            asker = ear.recvfrom(9000)
        if asker is not None:
            answer = asker[0][:2] + answers[number % len(answers)]
            for data in (answer, asker[0][:2] + _mutilated(answer[2:], chance)):
                ear.sendto(data, asker[1])
                sent += 1
        if number % 50 == 0:
            time.sleep(0.01)
    sys.stdout.write(f"{sent}\n")


def _flood(number: int) -> bytes:
    address = ipaddress.ip_address(0xFE80 << 112 | 0xBAD0000 + number).packed
    return grasp.announcing(grasp.AN_PROXY, address, 1 + number % 65000, number).encode()


def _answer(number: int) -> bytes:
    """All but the identifier."""
    message = dns.message.Message(id=0)
    message.flags = dns.flags.QR
    host = f"h{number}.local."
    for service in dnssd.services("local"):
        for n in range(8):
            instance = f"x{number}-{n}.{service}."
            message.answer.append(_record(f"{service}.", "PTR", instance))
            message.answer.append(_record(instance, "SRV", f"0 0 {n + 1} {host}"))
    message.additional.append(_record(host, "AAAA", f"fe80::bad:{number:x}"))
    return message.to_wire()[2:]


def _record(name: str, kind: str, data: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, 4500, "IN", kind, data)


def _mutilated(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(3):
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    return bytes(spoilt[: chance.randrange(1, len(spoilt) + 1)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
