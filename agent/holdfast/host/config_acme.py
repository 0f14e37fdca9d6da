"""What a configuration says about ACME beyond its schema: what each kind of challenge needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.host.config_tokens import Reading
from holdfast.host.config_yaml import Fault, KeyPath
from holdfast.wire.acme.challenges import DEVICE_ATTEST_01, DNS_01

LONGEST_NAME: Final = 24
"""Of an identity: its account key has a name of its own, made of it."""


def faults(reading: Reading, path: KeyPath) -> Iterator[Fault]:
    """Every rule that does not hold for the ``acme`` block at *path*."""
    acme = reading.get(path, dict) or {}
    challenges = acme.get("challenges", [DEVICE_ATTEST_01])
    identity = reading.get((*path[:2], "name"), str) or ""
    if len(identity) > LONGEST_NAME:
        yield reading.fault((*path[:2], "name"), f"at most {LONGEST_NAME} characters with acme")
    yield from reading.file((*path, "anchors-file"), secret=False)
    yield from _account(reading, path)
    if DNS_01 in challenges and "dns" not in acme:
        yield reading.fault((*path, "challenges"), "dns-01 needs dns")
    if "dns" in acme:
        yield from _dns(reading, (*path, "dns"))
    attestation = reading.get((*path, "attestation"), dict) or {}
    for name in ("chain-file", "anchors-file"):
        yield from reading.file((*path, "attestation", name), secret=False)
    ways = [k for k in ("ca-url", "chain-file") if k in attestation]
    if len(ways) > 1:
        yield reading.fault((*path, "attestation", ways[1]), f"excludes {ways[0]}")
    if DEVICE_ATTEST_01 in challenges and not ways:
        yield reading.fault(path, "device-attest-01 needs attestation: a ca-url or a chain-file")


def _account(reading: Reading, path: KeyPath) -> Iterator[Fault]:
    acme = reading.get(path, dict) or {}
    sources = [k for k in ("external-account-file", "external-account-credential") if k in acme]
    if len(sources) > 1:
        yield reading.fault((*path, sources[1]), f"excludes {sources[0]}")
    if "external-account" in acme and not sources:
        yield reading.fault((*path, "external-account"), "needs a file or credential with the MAC key")
    if sources and "external-account" not in acme:
        yield reading.fault((*path, sources[0]), "needs an external-account")
    yield from reading.file((*path, "external-account-file"), secret=True)
    yield from reading.credential((*path, "external-account-credential"))


def _dns(reading: Reading, path: KeyPath) -> Iterator[Fault]:
    dns = reading.get(path, dict) or {}
    if ("server" in dns) == ("command" in dns):
        yield reading.fault(path, "must have exactly one of server, command")
    if "server" in dns and "zone" not in dns:
        yield reading.fault((*path, "server"), "needs a zone")
    if ("key-name" in dns) != ("key-file" in dns):
        present = "key-name" if "key-name" in dns else "key-file"
        yield reading.fault((*path, present), "key-name and key-file go together")
    yield from reading.file((*path, "key-file"), secret=True)
    command = reading.get((*path, "command", 0), str)
    if command is not None and not command.startswith("/"):
        yield reading.fault((*path, "command", 0), "must be a path from the root (/...)")
