"""dns-01: a TXT record, by DNS update (RFC 2136) with a TSIG key, or by a program of the operator's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dns.exception
import dns.inet
import dns.name
import dns.query
import dns.rcode
import dns.resolver
import dns.tsig
import dns.tsigkeyring
import dns.update

from holdfast.host.acme.errors import SolverError
from holdfast.host.programs import ProgramError, run_program
from holdfast.wire.acme.challenges import DNS_01, Task

TTL: Final = 60
ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A key that a DNS server takes updates by (RFC 8945). ``secret`` is base64 as the server's file has
    it."""

    name: str
    secret: str = field(repr=False)
    algorithm: str = "hmac-sha256"


class DnsUpdates:
    """Adds and removes records at *server* (an address), in *zone*."""

    kinds = frozenset({DNS_01})

    def __init__(self, server: str, port: int, zone: str, key: TsigKey | None) -> None:
        self._server = server
        self._port = port
        self._zone = zone
        self._key = key

    def present(self, task: Task) -> None:
        """Raises SolverError ``acme.dns-update``."""
        update = self._update()
        name = dns.name.from_text(task.dns_name).relativize(dns.name.from_text(self._zone))
        update.add(name, TTL, "TXT", f'"{task.dns_value}"')
        self._send(update)

    def withdraw(self, task: Task) -> None:
        update = self._update()
        name = dns.name.from_text(task.dns_name).relativize(dns.name.from_text(self._zone))
        update.delete(name, "TXT", f'"{task.dns_value}"')
        self._send(update)

    def close(self) -> None:
        """Nothing stays open."""

    def _update(self) -> dns.update.UpdateMessage:
        try:
            ring = dns.tsigkeyring.from_text({self._key.name: self._key.secret}) if self._key else None
        except (dns.exception.DNSException, ValueError) as error:
            raise SolverError("acme.dns-key", f"{self._key.name if self._key else ''}: no base64") from error
        algorithm = dns.name.from_text(self._key.algorithm) if self._key else dns.tsig.default_algorithm
        return dns.update.UpdateMessage(self._zone, keyring=ring, keyalgorithm=algorithm)

    def _send(self, update: dns.update.UpdateMessage) -> None:
        where = f"{self._server} port {self._port}"
        try:
            answer = dns.query.tcp(update, self._server, timeout=ANSWER_SECONDS, port=self._port)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise SolverError("acme.dns-update", f"{where}: {error}"[:300], clause="RFC 2136 §3") from error
        if answer.rcode() != dns.rcode.NOERROR:
            said = dns.rcode.to_text(answer.rcode())
            raise SolverError("acme.dns-update", f"{where} answers {said}", clause="RFC 2136 §3.8")


class DnsProgram:
    """Runs *argv* with ``present`` or ``withdraw``, the record's name and its value."""

    kinds = frozenset({DNS_01})

    def __init__(self, argv: tuple[str, ...], timeout: float) -> None:
        self._argv = argv
        self._timeout = timeout

    def present(self, task: Task) -> None:
        """Raises SolverError ``acme.dns-command``."""
        self._run("present", task)

    def withdraw(self, task: Task) -> None:
        self._run("withdraw", task)

    def close(self) -> None:
        """Nothing stays open."""

    def _run(self, verb: str, task: Task) -> None:
        try:
            run_program((*self._argv, verb, task.dns_name, task.dns_value), self._timeout)
        except ProgramError as error:
            raise SolverError("acme.dns-command", f"{Path(self._argv[0]).name} {verb}: {error}") from error
