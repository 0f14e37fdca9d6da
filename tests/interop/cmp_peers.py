"""The independent CMP peers: OpenSSL's own server and client, of two Debian releases."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

import wire_pki as pki
from interop.est_peers import debian_root, free_port, missing, run, serving

OLD, NEW = "OpenSSL 3.0 (Debian 12)", "OpenSSL 3.5 (Debian 13)"
REFERENCE, SECRET = "gateway-7", "nine bean rows"


@dataclass(frozen=True)
class OpenSsl:
    """One OpenSSL, and a directory that it shares with us. ``enter`` starts a program where it lives."""

    label: str
    outside: Path
    inside: Path
    enter: Sequence[str] = ()

    def command(self, *arguments: str) -> list[str]:
        change = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.inside), "openssl", *arguments]
        return [*self.enter, *change]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.command(*arguments))

    @contextmanager
    def serving(self, *options: str) -> Iterator[int]:
        """``openssl cmp -port`` with *options*; yields its port."""
        port = free_port()
        command = self.command("cmp", "-port", str(port), "-verbosity", "7", *options)
        with serving(command, port, self.outside / "server.log"):
            yield port


@contextmanager
def openssl(label: str, directory: Path) -> Iterator[OpenSsl]:
    """The OpenSSL called *label*; a skip or a failure where it is missing."""
    if label == OLD:
        version = run(["openssl", "version"]).stdout if shutil.which("openssl") else ""
        if not version.startswith("OpenSSL 3.0."):
            missing("OpenSSL 3.0, as Debian 12 has it,")
        yield OpenSsl(label, directory, directory)
        return
    with ExitStack() as opened:
        place = opened.enter_context(debian_root())
        enter = ["chroot", str(place.root), "env", "-i", "PATH=/usr/bin:/bin"]
        yield OpenSsl(label, place.outside, place.inside, enter)


@dataclass
class Realm:
    """A CA, its CMP server, and a device with an identity of that CA. The peers have clocks."""

    authority: pki.Identity
    server: pki.Identity
    device: pki.Identity
    begin: datetime
    end: datetime
    issued: list[pki.Identity] = field(default_factory=list)

    @classmethod
    def create(cls) -> Realm:
        begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        end = begin + timedelta(days=60)
        authority = pki.ca("CMP Peer CA", not_before=begin, not_after=end)
        server = pki.end_entity("CMP Peer RA", authority, eku=[pki.CMC_RA], not_before=begin, not_after=end)
        device = pki.end_entity("device", authority, not_before=begin, not_after=end)
        return cls(authority, server, device, begin, end)

    def certificate(
        self,
        key: object,
        subject: x509.Name,
        san: Sequence[x509.GeneralName] = (),
        serial: int | None = None,
    ) -> pki.Identity:
        """What the CA will answer with: OpenSSL's server hands out what it was given."""
        made = pki.certificate(
            subject,
            key,  # type: ignore[arg-type]
            self.authority,
            extensions=[
                (x509.BasicConstraints(False, None), True),
                (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),  # type: ignore[attr-defined]
                *([(x509.SubjectAlternativeName(san), False)] if san else []),
            ],
            not_before=self.begin,
            not_after=self.end,
            serial=serial,
        )
        self.issued.append(made)
        return made

    def write(self, directory: Path) -> None:
        """``ca``, ``server``, ``server-key``, ``device``, ``device-key`` and ``issued``, each ``.pem``."""
        (directory / "ca.pem").write_bytes(pki.pem(self.authority.certificate))
        (directory / "server.pem").write_bytes(pki.pem(*self.server.chain))
        (directory / "server-key.pem").write_bytes(pki.key_pem(self.server.key))
        (directory / "device.pem").write_bytes(pki.pem(*self.device.chain))
        (directory / "device-key.pem").write_bytes(pki.key_pem(self.device.key))
        if self.issued:
            (directory / "issued.pem").write_bytes(pki.pem(self.issued[-1].certificate))


SIGNED = ("-srv_cert", "server.pem", "-srv_key", "server-key.pem", "-srv_trusted", "ca.pem")
KEYED = ("-srv_ref", REFERENCE, "-srv_secret", f"pass:{SECRET}")
